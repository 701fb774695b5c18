"""What the numbers in official label files mean: text files with lines of `number: name`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ttd.errors import InputError


def read_numbers(name: str | Path) -> dict[int, str]:
    """Number -> name, from the package's `assets/labels` by name or from any file; lines with `#` are comments.

    Raises:
        InputError: missing, no text, or a line of another form.
    """
    own = files("ttd").joinpath(f"assets/labels/{name}.txt")
    try:
        text = own.read_text("utf-8") if isinstance(name, str) and own.is_file() else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{name} cannot be read: give a text file with lines of `number: name`") from None
    found: dict[int, str] = {}
    for row, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        number, colon, title = line.partition(":")
        try:
            key = int(number)
        except ValueError:
            colon = ""
        if not colon or not title.strip():
            raise InputError(f"line {row} of {name} is not of the form `number: name`: correct it")
        found[key] = title.strip()
    if not found:
        raise InputError(f"{name} names no number: write lines of `number: name`")
    return found
