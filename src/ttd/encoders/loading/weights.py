"""Files of weights: which of a folder's files they are, whether they are whole, and their parameters by name.

People keep weights under more names than publishers do: shards, half precision, a training's last epoch, the
prefixes that compiling and parallel training leave before every parameter, pointers of Git LFS.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from ttd.encoders.loading.checkpoints import read_tensors
from ttd.encoders.loading.files import check_pointer, is_pointer, read_json
from ttd.errors import ModelError
from ttd.files.safe_paths import name_fault

log = logging.getLogger(__name__)
T = TypeVar("T")

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX = ".index.json"
# Of other libraries and other jobs: no weights of a model although they lie beside them.
_FOREIGN = {
    ".h5": "TensorFlow's",
    ".msgpack": "Flax's",
    ".onnx": "ONNX's",
    ".gguf": "llama.cpp's",
    ".tflite": "TensorFlow Lite's",
}
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler", "adapter_model", "sentencepiece")
# torch.compile, FSDP and activation checkpointing put these between the parts of a name, wherever they are used.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_READABLE = {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}


def weights_file(folder: Path, candidates: Iterable[str]) -> Path | None:
    """The first of the candidates that is in the folder; a pointer of Git LFS only where there is nothing else."""
    found = [folder / name for name in candidates if (folder / name).is_file()]
    return next((path for path in found if not is_pointer(path)), found[0] if found else None)


def find_weights(folder: Path, candidates: Iterable[str]) -> Path:
    """The weights of a folder: one of the candidates, else its only file that can be weights, whatever its name.

    Raises:
        ModelError: there is none, or more than one.
    """
    candidates = tuple(candidates)
    if (found := weights_file(folder, candidates)) is not None:
        return found
    others = other_weights(folder)
    if len(others) == 1:
        return others[0]
    preferred = next((name for name in candidates if name.endswith(".safetensors")), "the weights")
    if others:
        names = ", ".join(path.name for path in others[:4])
        raise ModelError(
            f"{folder} holds {len(others)} files that could be its weights ({names}): name the one to use, or "
            f"call it {preferred}"
        )
    foreign = sorted(path for path in folder.iterdir() if path.suffix in _FOREIGN)
    if foreign:
        raise ModelError(
            f"{folder} has a configuration but no weights that can be read: {foreign[0].name} is "
            f"{_FOREIGN[foreign[0].suffix]} format; put {preferred} beside it"
        )
    raise ModelError(f"{folder} has a configuration but no weights: put {preferred} beside it")


def other_weights(folder: Path) -> list[Path]:
    """Every file of a folder that can be the weights of a model by its ending, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in WEIGHT_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
        and not path.name.startswith(_NO_WEIGHTS)
    )


def weights_files(path: Path) -> list[Path]:
    """The files that hold the parameters: the file itself, or the shards that an index lists, checked to be whole."""
    check_pointer(path)
    shards = [path]
    if path.name.endswith(INDEX):
        shards = [path.parent / name for name in index_shards(path)]
    for shard in shards:
        check_safetensors(shard)
    return shards


def index_shards(index: Path) -> list[str]:
    """The file names that a `*.index.json` lists; ModelError where it lists anything else."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or any(name_fault(name) for name in names):
        raise ModelError(f'{index} has no "weight_map" of names of files beside it: download it again')
    return sorted(set(names))


def check_safetensors(path: Path) -> None:
    """Raise ModelError where a file of weights is missing or a pointer, or a safetensors file is cut off or none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path} is missing: download or copy it again")
    check_pointer(path)
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut off ({error}): download or copy it again") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """All parameters of a file of weights or of an index's shards, by the names that they have there.

    Raises:
        ModelError: a file is missing, damaged or a pointer.
    """
    tensors: dict[str, Tensor] = {}
    for shard in weights_files(path):
        tensors |= read_tensors(shard)
    if path.name.endswith(INDEX):
        lacking = sorted(set(read_json(path)["weight_map"]) - set(tensors))
        if lacking:
            raise ModelError(f"{path} lists {lacking[0]}, which none of its shards holds: download them again")
    return tensors


def check_values(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise ModelError where a parameter is not finite, or matrices are whole numbers or of 8 bits: a quantised model,
    whose scales are not known.
    """
    for name, values in tensors.items():
        if values.ndim >= 2 and str(values.dtype) not in _READABLE and not name.endswith("position_ids"):
            raise ModelError(
                f"{where} is quantised: {name} is {str(values.dtype).removeprefix('torch.')}; fetch the model in "
                "float32, float16 or bfloat16"
            )
        if values.is_floating_point() and str(values.dtype) in _READABLE and not bool(values.isfinite().all()):
            raise ModelError(
                f"{where} is damaged: {name} holds values that are not finite, as after an overflow of float16; fetch "
                "the model again"
            )


def unwrapped(tensors: Mapping[str, T], known: Collection[str], where: object) -> dict[str, T] | None:
    """Parameters without what training and compiling put around their names, or None where they are another model's.

    Args:
        tensors: by the names in the file.
        known: names that the model has; all of them must be found, before or behind one prefix.
        where: they come from.

    Raises:
        ModelError: more than one model lies in the file.
    """
    plain = {without_wrappers(name): values for name, values in tensors.items()}
    if set(known) <= plain.keys():
        return plain
    # Data-parallel training wraps a part as "module": dropped only where names do not fit as they are.
    plain = {without_wrappers(name, _WRAPPERS | {"module"}): values for name, values in tensors.items()}
    if set(known) <= plain.keys():
        return plain
    first = min(known)
    prefixes = [name.removesuffix(first) for name in plain if name.endswith(f".{first}")]
    prefixes = [prefix for prefix in prefixes if all(prefix + name in plain for name in known)]
    if not prefixes:
        return None
    if len(prefixes) > 1:
        raise ModelError(
            f"{where} holds {len(prefixes)} models, under {' and '.join(prefixes[:3])}: write the one that is meant "
            "into a file of its own"
        )
    prefix = prefixes[0]
    found = {name.removeprefix(prefix): values for name, values in plain.items() if name.startswith(prefix)}
    if others := sorted(name for name in plain if not name.startswith(prefix)):
        log.warning(
            "%s: %d of its parameters lie outside the model (%s) and are left out", where, len(others), others[0]
        )
    return found


def without_wrappers(name: str, wrappers: Collection[str] = _WRAPPERS) -> str:
    """A parameter's name without the parts that compiling and parallel training put into it."""
    return ".".join(part for part in name.split(".") if part not in wrappers)
