"""Where the pictures of a list lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ttd.errors import InputError


def picture_folder(folders: Sequence[Path], names: Iterable[str]) -> Path:
    """The first folder that holds one of the named pictures.

    Raises:
        InputError: none does.
    """
    listed = list(names)
    for folder in folders:
        if any((folder / name).is_file() for name in listed):
            return folder
    places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise InputError(f"none of the {len(listed)} listed pictures lies in {places}: put them there")
