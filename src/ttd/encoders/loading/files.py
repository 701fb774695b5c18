"""The small files of a model's folder: JSON objects, and the pointers that Git LFS leaves in place of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttd.errors import ModelError
from ttd.files import documents
from ttd.files.schema import mapping

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024  # Git LFS's own limit of a pointer


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError names the file where it is missing, damaged, a pointer, or no object."""
    check_pointer(path)
    content: dict[str, Any] = documents.read_json(
        path, mapping(), remedy="restore or download it again", error=ModelError
    )
    return content


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
