"""Adapters: PEFT folders onto an encoder's backbone, and the authors' single file onto TCL's parameters.

An adapter is a small change that belongs to one base. Everything about it is compared with the base before
anything is changed, so an adapter for another model is refused with a sentence.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttd.encoders.base import Encoder
from ttd.encoders.calibration import compare_trained
from ttd.encoders.identity import OUTDATED, is_outdated
from ttd.encoders.loading.checkpoints import read_tensors
from ttd.encoders.loading.files import read_json
from ttd.encoders.loading.formats import ADAPTER_WEIGHTS, CARD, Card, read_card
from ttd.encoders.loading.tokenizers import cause
from ttd.encoders.loading.weights import check_safetensors, weights_file, without_wrappers
from ttd.errors import ModelError, OtherBaseError, is_out_of_memory

log = logging.getLogger(__name__)

CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
REMEDY = "load it with the model that it was trained on"
_PEFT_PREFIX = "base_model.model."
_PEFT_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.\w+)?\.weight")
_FACTOR = re.compile(r"(?P<module>.+?)[._]lora_(?P<factor>[AB])(\.default)?(\.weight)?", re.IGNORECASE)
# Of PEFT's settings those by which a layer does more than add B A to its weights, where that needs more than the image.
_OTHER_LORA = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "monteclora_config", "use_bdlora",
    "use_qalora",
)  # fmt: skip
_WRAPPERS = ("module.", "model.", "base_model.model.", "base_model.")

# ---------------------------------------------------------------- PEFT folders


def attach_adapter(
    encoder: Encoder,
    folder: str | Path,
    *,
    scale: float = 1.0,
    merge: bool = True,
    model_ids: Collection[str] = (),
) -> None:
    """Attach a PEFT LoRA folder to `encoder.backbone`, in place; thresholds of its card replace the encoder's.

    Args:
        encoder: in float32, with no adapter so far.
        folder: holds `adapter_config.json`, `adapter_model.safetensors` and, optionally, `ttd.json`.
        scale: in 0..1; multiplies the LoRA update. 0 leaves the base untouched.
        merge: add the update to the weights; otherwise LoRA layers stay in the backbone.
        model_ids: hub ids under which the encoder's model is known; an adapter of another is warned about.

    Raises:
        ModelError: a file is missing or damaged, the adapter is not a LoRA, or it belongs to another base.
    """
    folder = Path(folder)
    config = _read_config(folder)
    card = _check_base(encoder, folder)
    _check_saved_modules(encoder.backbone, config, folder)
    _note_base(config, folder, model_ids)
    weights = weights_file(folder, ADAPTER_WEIGHTS)
    if weights is None:
        raise ModelError(f"{folder} has {CONFIG} but no {ADAPTER_WEIGHTS[0]}: copy it beside it")
    check_safetensors(weights)
    tensors = {without_wrappers(name): values for name, values in read_tensors(weights).items()}
    _check_shapes(encoder.backbone, tensors, folder)
    if 0 < scale < 1 and (config.get("use_dora") or config.get("modules_to_save") or _beyond_lora(tensors)):
        raise ModelError(f"{folder} changes more than low-rank layers: the scale must be 0 or 1")
    if scale > 0:
        _inject(encoder, folder, tensors, scale, merge)
        if card is not None:
            encoder.configured(background=card.background, caption_threshold=card.caption_threshold)


def with_layers(backbone: nn.Module, config: Any) -> Any:
    """PEFT's model around `backbone`, whose layers it changes in place, from a `LoraConfig`."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        return PeftModel(backbone, config)


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is not an adapter: {CONFIG} and {ADAPTER_WEIGHTS[0]} are needed in it")
    config = read_json(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        found = config.get("peft_type")
        raise ModelError(f"{folder / CONFIG} is of type {found!r}: only LORA can be attached")
    if config.get("megatron_config"):
        raise ModelError(f"{folder / CONFIG} names code that would have to be run (megatron_core): remove that entry")
    if other := [name for name in _OTHER_LORA if config.get(name)]:
        raise ModelError(
            f"{folder / CONFIG} is another kind of LoRA ({other[0]}), which cannot be attached: train plain LoRA"
        )
    return config


def _check_base(encoder: Encoder, folder: Path) -> Card | None:
    """The adapter's card, where it belongs to this encoder."""
    card = read_card(folder)
    if card is None:
        return None
    base = f' ("{card.base}")' if card.base else ""
    if card.kind != encoder.kind:
        raise OtherBaseError(
            f"the adapter {folder} belongs to a {card.kind} model{base}, not to this {encoder.kind} model: {REMEDY}"
        )
    if is_outdated(card.fingerprint):
        raise ModelError(
            f"{folder / CARD} cannot show whether the adapter belongs to this model: {OUTDATED}; train it again, or "
            "write the fingerprint again with tools/restamp.py of ttd's sources"
        )
    if card.fingerprint is not None and card.fingerprint != encoder.fingerprint():
        raise OtherBaseError(
            f"the adapter {folder} was trained on another base{base}, as the fingerprint in its {CARD} shows: {REMEDY}"
        )
    chosen = card.background is not None or card.caption_threshold is not None
    compare_trained(encoder, card.calibration, folder, chosen=chosen)
    return card


def _check_saved_modules(backbone: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """Raise where the adapter brings whole modules that the model does not have."""
    saved = config.get("modules_to_save") or []
    names = saved if isinstance(saved, list) else [saved]
    for name in names:
        if not any(module == name or module.endswith(f".{name}") for module, _ in backbone.named_modules()):
            raise OtherBaseError(
                f"the adapter {folder} replaces the module {name} (modules_to_save), which this model does not have: "
                f"{REMEDY}"
            )


def _note_base(config: Mapping[str, Any], folder: Path, model_ids: Collection[str]) -> None:
    """Warn where an adapter without a fingerprint names another hub id as its base."""
    base, card = config.get("base_model_name_or_path"), read_card(folder)
    if not isinstance(base, str) or not HUB_ID.fullmatch(base) or (card is not None and card.fingerprint is not None):
        return
    if model_ids and base.lower() not in {name.lower() for name in model_ids}:
        log.warning(
            "the adapter %s was trained on %s, not on %s: it is attached as the shapes fit; load it with its own base "
            "if that is not meant",
            folder, base, " or ".join(sorted(model_ids)),
        )  # fmt: skip


def _check_shapes(backbone: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise where a LoRA factor's module is not in the backbone or has other sizes."""
    modules = dict(backbone.named_modules())
    matches = {name: _PEFT_FACTOR.fullmatch(name.removeprefix(_PEFT_PREFIX)) for name in tensors}
    if not any(matches.values()):
        raise ModelError(f"{folder} holds no LoRA parameters: it is damaged, or no adapter")
    for name, match in matches.items():
        if match is None:
            continue
        weight = getattr(modules.get(match["module"]), "weight", None)
        if not isinstance(weight, Tensor):
            raise OtherBaseError(
                f"the adapter {folder} changes {match['module']}, which this model does not have: {REMEDY}"
            )
        axis = 1 if match["factor"] == "A" else 0
        if tensors[name].ndim < 2 or tensors[name].shape[axis] != weight.shape[axis]:
            raise OtherBaseError(
                f"the adapter {folder} does not fit: {match['module']} is {list(weight.shape)} here, but its "
                f"lora_{match['factor']} is {list(tensors[name].shape)}: {REMEDY}"
            )


def _beyond_lora(tensors: Mapping[str, Tensor]) -> bool:
    return any(not _PEFT_FACTOR.fullmatch(name.removeprefix(_PEFT_PREFIX)) for name in tensors)


def _inject(encoder: Encoder, folder: Path, tensors: dict[str, Tensor], scale: float, merge: bool) -> None:
    from peft import LoraConfig, set_peft_model_state_dict
    from peft.tuners.lora import LoraLayer

    with _peft_errors(folder):
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        model = with_layers(encoder.backbone, config)
        outcome = set_peft_model_state_dict(model, tensors)
    missing = [name for name in outcome.missing_keys if "lora_" in name]
    if missing or outcome.unexpected_keys:
        name = next(iter([*missing, *outcome.unexpected_keys]))
        raise ModelError(f"the adapter {folder} is incomplete or does not match its {CONFIG}: see {name}")
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(scale)
    if merge:
        with _peft_errors(folder):
            model.merge_and_unload()


@contextmanager
def _peft_errors(folder: Path) -> Iterator[None]:
    """A sentence for whatever PEFT raises of an adapter."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"the adapter {folder} cannot be attached to this model ({cause(error)}): {REMEDY}") from error


# ---------------------------------------------------------------- the authors' file


def read_adapter_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a single-file adapter, without the wrappers that training puts before their names."""
    check_safetensors(path)
    return {_unwrapped(name): tensor for name, tensor in read_tensors(path).items()}


def add_to_tensors(
    base: Mapping[str, Tensor],
    adapter: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    label: str = "the adapter",
) -> dict[str, Tensor]:
    """Add an adapter of unknown making to a model's parameters: `base + scale * change`.

    The format of the authors' `TCL+TTD.pt` is unpublished, so only what is unmistakable is accepted: a
    parameter under the base's own name and shape replaces it, and a pair `X.lora_A [r,in]`,
    `X.lora_B [out,r]` adds `B A` (times alpha / r where an `X.alpha` is given) to `X` or `X.weight`,
    convolutions being filled in row order.

    Returns:
        A new dict with the base's names.

    Raises:
        ModelError: names what does not fit; nothing is left out silently.
    """
    changed, unused = dict(base), dict(adapter)
    pairs = _factor_pairs(adapter)
    for module, (a, b) in pairs.items():
        target = _target(base, module, adapter[a], adapter[b])
        if target is None:
            continue
        alpha = unused.pop(f"{module}.alpha", None)
        factor = scale * (float(alpha) / adapter[a].shape[0] if alpha is not None else 1.0)
        update = (adapter[b].float() @ adapter[a].float()).reshape(base[target].shape)
        changed[target] = (base[target].float() + factor * update).to(base[target].dtype)
        del unused[a], unused[b]
    for name, tensor in list(unused.items()):
        if name in base and base[name].shape == tensor.shape:
            changed[name] = torch.lerp(base[name].float(), tensor.float(), scale).to(base[name].dtype)
            del unused[name]
    if unused or not adapter:
        raise ModelError(_misfit(label, unused, len(adapter)))
    if pairs and not any(name.endswith(".alpha") for name in adapter):
        log.warning("%s does not say how its low-rank updates are scaled: alpha / r = 1 is assumed", label)
    return changed


def _unwrapped(name: str) -> str:
    while prefix := next((p for p in _WRAPPERS if name.startswith(p)), None):
        name = name[len(prefix) :]
    return name


def _factor_pairs(adapter: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Module -> the names of its factors A and B, where both are there."""
    found: dict[str, dict[str, str]] = {}
    for name in adapter:
        if match := _FACTOR.fullmatch(name):
            found.setdefault(match["module"], {})[match["factor"].upper()] = name
    return {module: (both["A"], both["B"]) for module, both in found.items() if len(both) == 2}


def _target(base: Mapping[str, Tensor], module: str, a: Tensor, b: Tensor) -> str | None:
    """The parameter that a pair changes: the one with that name whose shape its product fills."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        return None
    shape, size = b.shape[:1], b.shape[0] * a.shape[1]
    for name in (module, f"{module}.weight"):
        if name in base and base[name].shape[:1] == shape and base[name].numel() == size:
            return name
    return None


def _misfit(label: str, unused: Mapping[str, Tensor], total: int) -> str:
    if not total:
        return f"{label} holds no tensors: it is not an adapter"
    shown = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(unused.items())[:3])
    return (
        f"{label}: {len(unused)} of its {total} parameters fit nothing in this model, such as {shown}; its "
        "format is not known here, so use it with the program that wrote it"
    )
