"""Reading checkpoint files without running anything that lies in them, and writing them as safetensors.

Three kinds of file: safetensors; pickles as `torch.save` writes them; TorchScript archives, which can hold
code and are therefore opened only if their SHA-256 is one that OpenAI publishes. A pickle is first read
under torch's `weights_only=True`. Where that refuses, it is read once more with every unknown class or
function replaced by an inert stub, and only the tensors come out.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttd.encoders.loading.files import check_pointer
from ttd.errors import ModelError
from ttd.files import whole_file

# github.com/openai/CLIP, clip/clip.py: each download address contains the file's hash.
OPENAI_SHA256 = {
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": "ViT-B-16.pt",
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
_READ_AT_ONCE = 1 << 20
_CONTAINERS = ("state_dict", "model", "module", "state_dict_ema")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, on the CPU.

    The parameters may lie at the top, or in a part called "state_dict" or "model"; what training puts before their
    names stays, but for a "module." before every name. Pickles of torch's zip format are mapped, not read,
    into memory.

    Raises:
        ModelError: the file is missing, truncated, of another kind, a TorchScript archive with an unknown
            hash, or
            holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"the checkpoint {path} does not exist: check the path")
    check_pointer(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if _is_torchscript(path):
        return _read_torchscript(path)
    tensors = _only_tensors(_read_pickle(path))
    if not tensors:
        raise ModelError(f"{path} holds no tensors: it is not a checkpoint of a model")
    return tensors


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, whole or not at all; `OSError` where the disk is full."""
    # Clones, for safetensors refuses views of one storage.
    own = {name: values.detach().cpu().clone().contiguous() for name, values in sorted(tensors.items())}
    with whole_file(path) as part:
        save_file(own, part, metadata={"format": "pt"})


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_READ_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # a damaged end of the directory: whoever opens it says so
        return True


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a zip archive with TorchScript's constants in it."""
    if not _is_zip(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("constants.pkl") or "/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise _damaged(path) from error


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    if sha256(path) not in OPENAI_SHA256:
        raise ModelError(
            f"{path} is a TorchScript archive, which can contain code, and not one of OpenAI's: "
            "convert it to safetensors where you trust it"
        )
    module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return {name: values.detach() for name, values in module.state_dict().items()}


def _read_pickle(path: Path) -> Any:
    is_zip = _is_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        pass  # refused or damaged: the second reading tells which
    except Exception as error:  # bytes that are not a pickle fail in every way there is
        raise _damaged(path) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=is_zip, pickle_module=_INERT_PICKLE)
    except Exception as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"{path} cannot be read as a checkpoint: it is damaged, cut short or of another kind; download it again"
    )


class _Stub:
    """Stands in for every class or function not known to be harmless; does nothing, whatever is asked."""

    def __new__(cls, *_: Any, **__: Any) -> _Stub:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Stub:
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take and forget an item of a list-like class."""

    def extend(self, values: Any) -> None:
        """Take and forget items of a list-like class."""

    def add(self, value: Any) -> None:
        """Take and forget an item of a set-like class."""


def _harmless() -> dict[tuple[str, str], Any]:
    """What a pickle of tensors needs by name: rebuilding functions, storages, types, ordered dictionaries."""
    known: dict[tuple[str, str], Any] = {("collections", "OrderedDict"): OrderedDict}
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        known["torch._utils", name] = getattr(torch._utils, name)
    for name, value in vars(torch).items():
        if isinstance(value, torch.dtype) or (isinstance(value, type) and name.endswith("Storage")):
            known["torch", name] = value
    return known


class _InertUnpickler(pickle.Unpickler):
    """A pickle reader that finds nothing but tensors: every other name is a `_Stub`."""

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), _Stub)


def _inert_load(file: Any, **options: Any) -> Any:
    return _InertUnpickler(file, **options).load()


_KNOWN = _harmless()
_INERT_PICKLE = SimpleNamespace(__name__="inert", Unpickler=_InertUnpickler, load=_inert_load)


def _only_tensors(checkpoint: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, wherever training code put it; everything else is left behind."""
    if not isinstance(checkpoint, Mapping):
        return {}
    for part in _CONTAINERS:
        inside = _only_tensors(checkpoint.get(part))
        if inside:
            return inside
    tensors = {str(name): t.detach() for name, t in checkpoint.items() if isinstance(t, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): t for name, t in tensors.items()}
    return tensors
