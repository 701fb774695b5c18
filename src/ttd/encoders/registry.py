"""A short name, a path or a hub id -> an encoder that is ready for inference."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ttd.encoders.base import Encoder
from ttd.encoders.calibration import set_calibration
from ttd.encoders.domain import read_domain
from ttd.encoders.families import Format, find_family
from ttd.encoders.loading.adapters import HUB_ID, add_to_tensors, attach_adapter, read_adapter_file
from ttd.encoders.loading.catalogue import IN_PACKAGE, ModelEntry, find_entry, known_models
from ttd.encoders.loading.downloads import cache_folder, released_weights
from ttd.encoders.loading.formats import Source, read_card, read_vocabulary, recognise
from ttd.encoders.loading.hub import hub_adapter, hub_model
from ttd.encoders.loading.tokenizers import cause
from ttd.encoders.methods import Method, find_method
from ttd.errors import InputError, ModelError, OutOfMemory, TTDError, is_out_of_memory
from ttd.inference.device import find_device
from ttd.registry import DTYPES

__all__ = ["known_models", "load_encoder"]

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
MINI = _ASSETS / "mini"


def load_encoder(
    name: str | Path = "mini",
    *,
    adapter: str | Path | None = None,
    adapter_scale: float = 1.0,
    method: str | None = None,
    proxy_model: str | Path | None = None,
    calibration: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    merge: bool = True,
) -> Encoder:
    """Load a model for inference: eval mode, no parameter asks for a gradient.

    Args:
        name: a short name (see `known_models`), a folder or file, or a hub id ("google/siglip-...").
        adapter: an adapter's short name, folder, file or hub id.
        adapter_scale: how much of the adapter counts: 0 is the base exactly, 1 the adapter as trained.
        method: name of a method, see `ttd.encoders.methods`; None takes the model's own.
        proxy_model: hub id or folder of the second backbone, for a method that has one; None takes the method's own.
        calibration: a file of `ttd calibrate`, or another model's `ttd.json`; None takes the model's own.
        device: None is CUDA where there is one, else MPS, else the CPU.
        dtype: "float32", "bfloat16", "float16", or torch's; None is float32.
        merge: add the adapter to the weights, which makes it free; False keeps its layers apart.

    Raises:
        ModelError: the model or adapter is unknown, missing, damaged, or does not fit.
        InputError: an option is wrong.
        OutOfMemory: the model does not fit on the device.
    """
    place, precision = find_device(device), _dtype(dtype)
    if not 0 <= adapter_scale <= 1:
        raise InputError(f"adapter_scale must be between 0 and 1, not {adapter_scale}")
    chosen = None if method is None else find_method(method)  # a wrong name is said before anything is loaded
    if proxy_model is not None:
        if chosen is None:
            raise InputError("a proxy model belongs to a method with a second backbone: name the method too")
        chosen = chosen.with_second_backbone(proxy_model)
    adapter_path = find_adapter(adapter) if adapter is not None else None
    source = find_model(name)
    try:
        if adapter_path is None:
            encoder = _calibrated(build(source, chosen), calibration)
        elif adapter_path.is_file():
            with_adapter = _with_adapter_file(source, adapter_path, adapter_scale)
            encoder = _calibrated(build(with_adapter, chosen), calibration)
        else:
            # An adapter may have been trained with another method than its base has by default.
            card = read_card(adapter_path)
            trained = card.method if card is not None and card.kind == source.kind else None
            encoder = _calibrated(build(source, chosen or trained), calibration)
            ids = _hub_ids(str(name), source.path)
            attach_adapter(encoder, adapter_path, scale=adapter_scale, merge=merge, model_ids=ids)
        return encoder.to(place, precision).eval().requires_grad_(False)
    except (MemoryError, RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            other = "" if place.type == "cpu" else ", or cpu"
            raise OutOfMemory(f"{name} does not fit into the memory of {place}: use a smaller model{other}") from error
        raise


# ---------------------------------------------------------------- names


def find_model(name: str | Path) -> Source:
    """The model on disk that a short name, path or hub id stands for, downloaded where need be."""
    entry = find_entry(str(name))
    if entry is not None:
        return _from_catalogue(entry)
    if Path(name).expanduser().exists():
        return recognise(name)
    if HUB_ID.fullmatch(str(name)):
        return recognise(hub_model(str(name)))
    raise _unknown(str(name), "model")


def find_adapter(name: str | Path) -> Path:
    """The folder (PEFT) or file (the authors') that an adapter's short name, path or hub id stands for."""
    entry = find_entry(str(name), "adapter")
    if entry is not None and entry.source == IN_PACKAGE:
        return _ASSETS / entry.name.replace("+", "_")
    if entry is not None and entry.file is not None:
        path = cache_folder() / entry.file
        if not path.is_file():
            raise ModelError(
                f"{entry.file} must be fetched by hand from {entry.source}: put it at {path} or pass its path"
            )
        return path
    path = Path(name).expanduser()
    if path.exists():
        return path
    if HUB_ID.fullmatch(str(name)):
        return hub_adapter(str(name))
    raise _unknown(str(name), "adapter")


def find_folder(name: str | Path, what: str, kinds: Iterable[str]) -> Path:
    """The folder of a model beside the encoder (`what`: "refiner", "second backbone") that a short name, path or hub id
    stands for, downloaded where need be; `kinds` are those of its `config.json` that will do."""
    entry = find_entry(str(name), what)
    path = Path(name).expanduser()
    if entry is None and path.exists():
        return path
    source = entry.source if entry else str(name)
    if HUB_ID.fullmatch(source):
        return hub_model(source, entry, [Format("hf", model_type=kind) for kind in kinds])
    raise _unknown(str(name), what)


def _from_catalogue(entry: ModelEntry) -> Source:
    if entry.name == "mini":
        if not MINI.is_dir():
            raise ModelError(f"the package's own model is missing from {MINI}: install the package again")
        return recognise(MINI)
    if entry.file is not None:
        return recognise(released_weights(entry))
    folder = hub_model(entry.source, entry)
    # A folder that was filled by hand may hold the same model under another name.
    pinned = entry.weights if entry.weights and (folder / entry.weights).is_file() else None
    return recognise(folder, pinned)


def _hub_ids(name: str, path: Path) -> set[str]:
    """The hub ids under which a model is known: by its name, or by the cache's folder that it lies in."""
    entry = find_entry(name)
    ids = {name} if entry is None and HUB_ID.fullmatch(name) and not Path(name).expanduser().exists() else set()
    if entry is not None and entry.hub_id is not None:
        ids.add(entry.hub_id)
    ids |= {part.removeprefix("models--").replace("--", "/", 1) for part in path.parts if part.startswith("models--")}
    if path.parent == cache_folder() and "--" in path.name:
        ids.add(path.name.replace("--", "/", 1))
    return ids


def _unknown(name: str, what: str) -> ModelError:
    other = "adapter" if what == "model" else "model"
    if find_entry(name, other):
        return ModelError(f'"{name}" names a known {other}: pass it as the {other}, not as the {what}')
    names = [entry.name for entry in known_models() if entry.what == what]
    close = difflib.get_close_matches(name.lower(), names, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    known = f"known names are {', '.join(names)}" if names else "give a folder or a hub id"
    return ModelError(f'unknown {what} "{name}", no such file or folder either: {hint}{known}')


# ---------------------------------------------------------------- building


def build(source: Source, method: str | Method | None = None) -> Encoder:
    """The encoder of a recognised model, on the CPU in float32, with what its card says.

    Raises:
        ModelError: the weights do not fit their configuration, or the card names what does not exist.
    """
    family, card = find_family(source.kind), source.card
    chosen = method or (card.method if card else None)
    if chosen and not family.encoder.takes_method:
        raise ModelError(f"{source.path} is a {source.kind} model, whose last block has one form: leave the method out")
    options: dict[str, Any] = {"method": chosen} if chosen else {}
    try:
        encoder = family.encoder.from_source(source, **options).float()
    except TTDError:
        raise
    except Exception as error:  # files of any content: whatever a library raises about them
        if is_out_of_memory(error) or isinstance(error, OSError):
            raise
        raise ModelError(
            f"{source.path} cannot be built as a {source.kind} model ({cause(error)}): fetch its files again, all from "
            "the same model"
        ) from error
    if card is None:
        return encoder
    folder = source.path if source.path.is_dir() else source.path.parent
    fitted = card.calibration
    if encoder.method is not None and encoder.method.calibration is not None:
        fitted = None  # the card's is about cosines, which this method does not give
    vocabulary = read_vocabulary(folder, card)
    domain = None if card.domain is None else read_domain(folder / card.domain)
    return encoder.configured(card.image_size, card.background, vocabulary, card.caption_threshold, fitted, domain)


def _calibrated(encoder: Encoder, calibration: str | Path | None) -> Encoder:
    if calibration is not None:
        set_calibration(encoder, calibration)
    return encoder


def _with_adapter_file(source: Source, path: Path, scale: float) -> Source:
    """Add a single-file adapter to the parameters of a model, whose names it is expected to share."""
    if not find_family(source.kind).encoder.single_file_adapters or source.tensors is None:
        raise ModelError(
            f"{path} is a single file, as only TCL's adapters are: a {source.kind} model takes a PEFT folder "
            "(adapter_config.json with adapter_model.safetensors)"
        )
    tensors = add_to_tensors(source.tensors, read_adapter_file(path), scale=scale, label=path.name)
    return replace(source, tensors=tensors)


# ---------------------------------------------------------------- options


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    known: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}
    chosen = known.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if chosen not in known.values():
        raise InputError(f"unknown dtype {dtype}: use {', '.join(DTYPES)}")
    assert chosen is not None
    return chosen
