"""CLIPs in the files of OpenAI and of OpenCLIP: what tells them, and what they say of their towers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ttd.encoders.loading.files import statistics
from ttd.encoders.loading.openai_names import clip_to_hf
from ttd.encoders.loading.weights import unwrapped
from ttd.errors import ModelError

log = logging.getLogger(__name__)

OPENAI_PARAMETERS = frozenset({"visual.conv1.weight", "visual.proj", "text_projection"})
_OPENAI_WIDEST = 1024

# Settings of OpenCLIP's towers that change the computation, and the values that leave it as it is here.
_PLAIN_OPEN_CLIP: dict[str, tuple[Any, ...]] = {
    "timm_model_name": (None,),
    "hf_model_name": (None,),
    "pool_type": (None, "tok", "argmax"),
    "global_average_pool": (None, False),
    "no_causal_mask": (None, False),
    "embed_cls": (None, False),
    "norm_kwargs": (None, {}),
    "act_kwargs": (None, {}),
}

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
)


class OpenCLIP(NamedTuple):
    """An OpenCLIP model as its files describe it.

    Attributes:
        parameters: under OpenAI's names.
        vision, text: the settings of each tower that the parameters do not show.
        activation: as transformers names it.
        statistics: "mean" and "std" of pixels, where the configuration has them.
    """

    parameters: Mapping[str, Tensor]
    vision: dict[str, int]
    text: dict[str, int]
    activation: str
    statistics: dict[str, Any]


def read_open_clip(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OpenCLIP:
    """The model of an `open_clip_config.json` and its parameters.

    Raises:
        ModelError: the config describes towers other than OpenCLIP's own ViT and text transformer.
    """
    shape = _part(config, "model_cfg") if "model_cfg" in config else config
    vision, text = _part(shape, "vision_cfg"), _part(shape, "text_cfg")
    for part in (vision, text):
        for setting, plain in _PLAIN_OPEN_CLIP.items():
            if part.get(setting) not in plain:
                raise ModelError(f"this OpenCLIP model has {setting} = {part[setting]}: only its plain ViTs load here")
    # OpenCLIP writes the text tower under "text." when the model was declared with `custom_text`.
    renamed = {name.removeprefix("text."): values for name, values in tensors.items()}
    width = renamed["visual.class_embedding"].shape[0] if "visual.class_embedding" in renamed else 0
    head_width, text_heads = _count(vision, "head_width", 64), _count(text, "heads", 8)
    vision_heads = max(1, width // head_width)
    _check_heads(width, vision_heads, f"head_width {head_width}")
    _check_heads(_text_width(renamed), text_heads, f"heads {text_heads}")
    return OpenCLIP(
        renamed,
        {"num_attention_heads": vision_heads},
        {"num_attention_heads": text_heads},
        "quick_gelu" if shape.get("quick_gelu") else "gelu",
        statistics({name: _part(config, "preprocess_cfg").get(name) for name in ("mean", "std")}, OPEN_CLIP_CONFIG),
    )


def open_clip_parameters(tensors: Mapping[str, Tensor], weights: Path) -> dict[str, Tensor]:
    """OpenCLIP's parameters without what training put around their names."""
    named = unwrapped(tensors, ("visual.conv1.weight", "visual.proj"), weights)
    if named is None:
        raise ModelError(
            f"{weights} holds no ViT CLIP as OpenCLIP names its parameters (its first is {min(tensors)}): put the "
            f"weights that belong to {OPEN_CLIP_CONFIG} beside it"
        )
    return named


def openai_to_hf(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """OpenAI's or OpenCLIP's parameters, which some keep beside transformers' configuration, under its names."""
    named = unwrapped(tensors, OPENAI_PARAMETERS, "the checkpoint")
    return None if named is None else clip_to_hf(named)


def check_openai_width(tensors: Mapping[str, Tensor]) -> None:
    """Raise where a single file is none of OpenAI's: nothing in it says how many heads its towers have."""
    vision = tensors["visual.class_embedding"].shape[0] if "visual.class_embedding" in tensors else 0
    for width in (vision, _text_width(tensors)):
        if width > _OPENAI_WIDEST:
            raise ModelError(
                f"the checkpoint's towers are {width} channels wide, and OpenAI published no ViT wider than "
                f"{_OPENAI_WIDEST}: put {OPEN_CLIP_CONFIG}, which says their heads and activation, beside it"
            )


def _text_width(tensors: Mapping[str, Tensor]) -> int:
    return tensors["token_embedding.weight"].shape[1] if "token_embedding.weight" in tensors else 0


def _check_heads(width: int, heads: int, said: str) -> None:
    if width % heads:
        raise ModelError(
            f"{OPEN_CLIP_CONFIG}: {said} does not fit a tower of {width} channels: take it from the same model"
        )


def note_activation(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Say that an activation is assumed, where a file has not what OpenAI's own files have."""
    if "input_resolution" not in tensors:
        log.warning(
            "%s does not say its activation and heads: OpenAI's are used (QuickGELU, 64 channels a head); a file of "
            "OpenCLIP needs its %s beside it",
            path, OPEN_CLIP_CONFIG,
        )  # fmt: skip


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in OpenCLIP's configuration; what is null or missing is empty."""
    part = config.get(name)
    if part is not None and not isinstance(part, Mapping):
        raise ModelError(f"{OPEN_CLIP_CONFIG}: {name} is {part!r}, and no object: download it again")
    return dict(part or {})


def _count(part: Mapping[str, Any], name: str, default: int) -> int:
    value = default if part.get(name) is None else part[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelError(f"{OPEN_CLIP_CONFIG}: {name} is {value!r}, and no whole number above 0: download it again")
    return value
