"""transformers folders and hub ids: the model, read and written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN
from transformers.utils import logging as transformers_logging

from ttd.encoders.families import HF_WEIGHTS
from ttd.encoders.loading.files import check_unquantised, read_json
from ttd.encoders.loading.formats import check_references
from ttd.encoders.loading.tokenizers import cause
from ttd.encoders.loading.weights import check_values, find_weights, read_weights, unwrapped
from ttd.errors import ModelError, is_out_of_memory

log = logging.getLogger(__name__)

CONFIG = "config.json"
ANCHOR = "vision_model.embeddings.patch_embedding.weight"
SAM_ANCHOR = "vision_encoder.patch_embed.projection.weight"
_TOWERS = ("vision_config", "text_config")
# How attention is computed and which code may be run are not part of what a model is.
_NOT_OF_THE_MODEL = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "auto_map")
# A damaged number would be built for hours, or end in an error of torch while the model works.
_SIZES = {
    "num_hidden_layers": 1000,
    **dict.fromkeys(("num_attention_heads", "hidden_size", "intermediate_size"), 10**6),
}
_BUFFERS = ("position_ids",)  # older versions of transformers saved them


def local_folder(source: str | Path) -> Path:
    """The folder of a transformers model that a folder's path or hub id stands for, downloaded where need be."""
    if Path(source).is_dir():
        return Path(source)
    from ttd.encoders.loading.hub import hub_model

    return hub_model(str(source))


def read_config(folder: Path, config_class: Any) -> Any:
    """A folder's `config.json` as transformers' configuration of a model of two towers, or of one.

    Raises:
        ModelError: it describes another kind of model, a quantised one, or none that can be built.
    """
    path = folder / CONFIG
    content = read_json(path)
    expected = config_class.model_type
    if content.get("model_type") != expected:
        raise ModelError(f"{folder} holds a {content.get('model_type')!r} model where {expected!r} is expected")
    check_unquantised(content, path)
    for part in (content, *(content[tower] for tower in _TOWERS if isinstance(content.get(tower), dict))):
        for name in _NOT_OF_THE_MODEL:
            part.pop(name, None)
    vision = content.get(_TOWERS[0])
    for name in ("image_size", "patch_size"):
        if isinstance(vision, dict) and vision.get(name) is not None:
            vision[name] = _side(vision[name], name, path)
    try:
        config = config_class.from_dict(content)
    except Exception as error:  # transformers checks a configuration in every way there is
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{path} cannot be used ({cause(error)}): download it again") from error
    for tower in (getattr(config, name, config) for name in _TOWERS):
        for name, most in _SIZES.items():
            size = getattr(tower, name, 1)
            if isinstance(size, int) and not 0 < size <= most:
                raise ModelError(f"{path}: {name} is {size}, not 1 to {most}: download it again")
        activation = getattr(tower, "hidden_act", None)
        if isinstance(activation, str) and activation not in ACT2FN:
            raise ModelError(f"{path} names the activation {activation!r}, which does not exist: download it again")
    return config


def _side(value: Any, name: str, path: Path) -> int:
    """A side in pixels, of a square that some write as height and width."""
    sides = value if isinstance(value, list) else [value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    if not sides or not whole or len(set(sides)) > 1:
        raise ModelError(f"{path}: {name} is {value!r}, and only models of square images and patches can be read")
    return int(sides[0])


def load_pretrained(
    model_class: Any,
    folder: Path,
    config: Any,
    weights: Path | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor] | None] | None = None,
    anchor: str = ANCHOR,
    **more: Any,
) -> Any:
    """The model of a transformers folder, in float32.

    Args:
        model_class: of transformers.
        folder: of the model.
        config: see `read_config`.
        weights: the file of its weights, or the index of their shards; None finds it.
        tensors: what that file holds, where it has been read.
        rename: parameters under another library's names -> under transformers', or None where they are not that one's.
        anchor: a parameter by whose name the model is known.
        more: for the class.

    Raises:
        ModelError: the weights cannot be read, lack parameters, or have other shapes than the configuration says.
    """
    check_references(folder)
    weights = weights or find_weights(folder, HF_WEIGHTS)
    tensors = read_weights(weights) if tensors is None else tensors
    named = unwrapped(tensors, [anchor], weights)
    if named is None and rename is not None:
        named = rename(tensors)
    if named is None:
        raise ModelError(
            f"{weights} holds no {config.model_type} model as transformers names its parameters (the first is "
            f"{min(tensors, default='none')}): put the weights that belong to {CONFIG} beside it"
        )
    check_values(named, weights)
    try:
        with quietly():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=named,
                dtype=torch.float32,
                attn_implementation="sdpa",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **more,
            )
    except Exception as error:  # transformers and torch raise whatever they meet
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{folder} cannot be loaded as a {config.model_type} model: {cause(error)}") from error
    _check_report(report, folder, weights, config.model_type)
    return model


def _check_report(report: Mapping[str, Any], folder: Path, weights: Path, kind: str) -> None:
    """Raise or warn where parameters were missing, of other shapes, or left over."""
    for name, found, wanted in sorted(report["mismatched_keys"])[:1]:
        raise ModelError(
            f"{weights} does not fit {folder / CONFIG}: {name} is {list(found)} and not {list(wanted)}; take both from "
            "the same model"
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"{weights} is incomplete: it lacks {missing}; download it again")
    unknown = sorted(name for name in report["unexpected_keys"] if not name.endswith(_BUFFERS))
    if unknown:
        log.warning(
            "%s has %d parameters that a %s model of %s does not have, such as %s: they are left out, and its answers "
            "may differ from the ones it was trained for",
            weights, len(unknown), kind, CONFIG, unknown[0],
        )  # fmt: skip


def image_processor(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], image_size: int, size: dict[str, int]
) -> dict[str, Any]:
    """The content of `preprocessor_config.json`: bicubic, a square crop of `image_size`."""
    return {
        "image_processor_type": name,
        "image_mean": list(mean),
        "image_std": list(std),
        "size": size,
        "crop_size": {"height": image_size, "width": image_size},
        "resample": 3,
    }


def save_pretrained(folder: Path, model: Any, tokenizer: Any, processor: dict[str, Any]) -> None:
    """Write a transformers folder.

    Args:
        folder: gets the files; the caller sees to it that it appears whole.
        model: a transformers model without adapter.
        tokenizer: None: none is written.
        processor: see `image_processor`.
    """
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n", encoding="utf-8")
    with quietly():
        model.save_pretrained(folder)


@contextmanager
def quietly() -> Iterator[None]:
    """No bar for weights that are read from the disk, no tables in the log: transformers' heed no terminal."""
    # transformers switches huggingface_hub's bars with its own: downloads must have theirs back.
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
