"""The small files of a model's folder: JSON objects, the pointers that Git LFS leaves in place of files, and how a
folder says its image statistics, the mean and std by which pixels in 0..1 are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttd.errors import ModelError
from ttd.files import documents
from ttd.files.schema import is_number, mapping

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024  # Git LFS's own limit of a pointer


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError names the file where it is missing, damaged, a pointer, or no object."""
    check_pointer(path)
    content: dict[str, Any] = documents.read_json(
        path, mapping(), remedy="restore or download it again", error=ModelError
    )
    return content


def model_type(config: Path) -> str | None:
    """The `model_type` that a `config.json` names; None where there is no such file, or it names none."""
    found = read_json(config).get("model_type") if config.is_file() else None
    return found if isinstance(found, str) else None


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git leaves where the file itself lies in Large File Storage."""
    try:
        if not path.is_file() or path.stat().st_size > _POINTER_BYTES:
            return False
        with open(path, "rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False  # whoever reads it says why it cannot be read


def check_pointer(path: Path) -> None:
    """Raise ModelError where a file is such a pointer."""
    if is_pointer(path):
        raise ModelError(
            f"{path} is only a pointer of Git LFS, not the file itself: run `git lfs pull` in {path.parent}"
        )


def check_unquantised(config: Mapping[str, Any], path: Path) -> None:
    """Raise where a `config.json` describes a model whose weights are quantised."""
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
        raise ModelError(
            f"{path} describes a quantised model ({method or 'quantization_config'}), which cannot be read: fetch the "
            "model in float32, float16 or bfloat16"
        )


PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_BYTE = 1 / 255


def load_statistics(folder: str | Path) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` of a transformers folder, as far as it says them.

    transformers 5 writes `processor_config.json` with the image processor inside, versions before it
    `preprocessor_config.json`; where both are there the first counts, as it does there.

    Raises:
        ModelError: a value is none, or pixels are not scaled to 0..1 before.
    """
    for name in PROCESSOR_FILES:
        path = Path(folder) / name
        if not path.is_file():
            continue
        content = read_json(path)
        settings = content.get("image_processor") if name == PROCESSOR_FILES[0] else content
        if isinstance(settings, dict):
            return _of_processor(settings, path)
    return {}


def _of_processor(settings: Mapping[str, Any], path: Path) -> dict[str, tuple[float, ...]]:
    if settings.get("do_normalize") is False:
        plain: dict[str, tuple[float, ...]] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    else:
        plain = statistics({"mean": settings.get("image_mean"), "std": settings.get("image_std")}, path)
    factor = 1 if settings.get("do_rescale") is False else settings.get("rescale_factor")
    if factor is not None and not (is_number(factor) and abs(factor - _BYTE) < 1e-4 * _BYTE):
        raise ModelError(
            f"{path} scales pixels by {factor} (rescale_factor, do_rescale) before they are normalised, and only 1/255 "
            "is supported: correct it"
        )
    return plain


def statistics(named: Mapping[str, Any], where: object) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` of three channels from values as files write them; what is null is left out.

    Raises:
        ModelError: a value is not three numbers, or a std is not positive.
    """
    found = {}
    for name, values in named.items():
        if values is None:
            continue
        numbers = [values] * 3 if is_number(values) else values  # one for all channels
        if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(is_number, numbers)):
            raise ModelError(f"{where}: the {name} of images must be three numbers, not {values!r}: correct it")
        if name == "std" and min(numbers) <= 0:
            raise ModelError(f"{where}: the std of images must be above 0, not {values!r}: correct it")
        found[name] = tuple(map(float, numbers))
    return found
