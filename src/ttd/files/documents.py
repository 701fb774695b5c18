"""Reading JSON and TOML, with a check of each value; all such files are read here.

A file may come from anyone: its size and nesting are bounded, and a schema (`ttd.files.schema`) says what each value
must be. Whatever does not fit ends as one sentence with the file, the place in it and a remedy:

    read_json(path, fields({"settings": mapping(), "seed": integer}), remedy="run the command again")
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ttd.errors import InputError, TTDError
from ttd.files.schema import Misfit, Schema, brief, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MOST_BYTES = 1 << 28
MOST_LEVELS = 64  # of objects and lists in one another; Python's own limits are above it


def read_json(
    path: str | Path,
    schema: Schema | None = None,
    *,
    remedy: str = "restore it, or make it again",
    error: type[TTDError] = InputError,
    most: int = MOST_BYTES,
    nan: bool = False,
) -> Any:
    """What a JSON file holds, UTF-8 with or without a mark at its beginning.

    Args:
        path: the file.
        schema: what its content must be; None for any.
        remedy: ends each sentence about the file.
        error: is raised.
        most: bytes.
        nan: NaN and infinite numbers are allowed in it: no standard has them, but Python writes them.

    Raises:
        TTDError: of the kind `error`: there is no such file, or its content is not JSON, too large, too deeply nested,
            or does not fit the schema.
        OSError: the system does not let it be read.
    """
    return _read(path, schema, remedy, error, most, lambda content: parse_json(content, nan=nan))


def read_toml(
    path: str | Path,
    schema: Schema | None = None,
    *,
    remedy: str = "correct it",
    error: type[TTDError] = InputError,
    most: int = 1 << 20,
) -> dict[str, Any]:
    """What a TOML file holds; for arguments and errors see `read_json`."""
    content: dict[str, Any] = _read(path, schema, remedy, error, most, parse_toml)
    return content


def _read(
    path: str | Path,
    schema: Schema | None,
    remedy: str,
    error: type[TTDError],
    most: int,
    parse: Callable[[bytes], Any],
) -> Any:
    path = Path(path)
    with refused(path, remedy, error):
        content = parse(file_bytes(path, most))
        if schema is not None:
            schema(content)
        return content


@contextmanager
def refused(where: object, remedy: str, error: type[TTDError] = InputError) -> Iterator[None]:
    """Makes of each `Misfit` in the block one sentence, with `where` as the document."""
    try:
        yield
    except Misfit as misfit:
        place = f": {shown(misfit.place)}" if misfit.place else ""
        raise error(f"{where}{place} {misfit.fault}: {remedy}") from None


def file_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A file's content.

    Raises:
        Misfit: it is missing, no plain file, or larger than `most` bytes.
        OSError: the system does not let it be read.
    """
    try:
        if path.is_dir():
            raise Misfit("is a folder and not a file")
        if not path.exists():
            raise Misfit("does not exist")
        if not path.is_file():  # a pipe would be waited for, a device has no end
            raise Misfit("is not a file")
        with path.open("rb") as file:
            # Not `most`: so many bytes would be set aside before any is read.
            content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except ValueError as fault:
        if isinstance(fault, Misfit):
            raise
        raise Misfit("cannot be a path") from None  # a null character
    if len(content) > most:
        raise Misfit(f"is larger than {most:,} bytes")
    return content


def parse_json(content: bytes | str, schema: Schema | None = None, *, nan: bool = False, errors: str = "strict") -> Any:
    """The value of a JSON text.

    Args:
        content: UTF-8, with or without a mark at its beginning.
        schema: what the value must be; None for any.
        nan: NaN and infinite numbers are allowed in it.
        errors: what becomes of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        Misfit: it is not JSON, too deeply nested, or does not fit the schema.
    """
    text = _text(content, errors)
    try:
        value = json.loads(text) if nan else json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as fault:
        raise Misfit(f"is not JSON ({fault.msg.lower()} in line {fault.lineno}, column {fault.colno})") from None
    except Misfit:
        raise
    except ValueError:  # Python reads no number of more than 4300 digits
        raise Misfit("holds a number that is too long") from None
    except RecursionError:
        _too_deep()
    _check_levels(value)
    if schema is not None:
        schema(value)
    return value


def as_read_back(value: Any) -> Any:
    """Plain values as they come back from a JSON file: tuples as lists, names as texts."""
    return json.loads(json.dumps(value))


def parse_toml(content: bytes | str) -> dict[str, Any]:
    """The table of a TOML text; raises `Misfit` as `parse_json`."""
    try:
        value: dict[str, Any] = tomllib.loads(_text(content, "strict"))
    except Misfit:
        raise
    except ValueError as fault:  # of the parser, or of a number of more than 4300 digits
        raise Misfit(f"is not TOML ({brief(str(fault)).lower()})") from None
    except RecursionError:
        _too_deep()
    _check_levels(value)
    return value


def _text(content: bytes | str, errors: str) -> str:
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as fault:
        raise Misfit(f"is not UTF-8 (byte {fault.start})") from None


def _no_number(name: str) -> NoReturn:
    raise Misfit(f"holds {name}, which is not a number")


def _check_levels(value: Any) -> None:
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    _too_deep()


def _too_deep() -> NoReturn:
    raise Misfit(f"is nested deeper than {MOST_LEVELS} levels") from None
