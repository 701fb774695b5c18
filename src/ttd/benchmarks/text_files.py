"""Text files of data sets and users, line by line."""

from __future__ import annotations

from pathlib import Path

from ttd.errors import InputError


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file in UTF-8, without the mark with which some editors begin it.

    Raises:
        InputError: missing, a folder, or no UTF-8; ends with `advice`, what to do.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: {advice}") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path} is no text file in UTF-8: {advice}") from None
