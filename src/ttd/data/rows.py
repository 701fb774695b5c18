"""Rows of CSV, TSV and JSONL files: where each ends, and its fields by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttd.data.csv_records import records
from ttd.data.text_files import encoding_of
from ttd.errors import InputError

Row = tuple[int, dict[str, Any]]
_MOST_CHARACTERS = 1 << 17  # of a line of CSV: more is another kind of file


def csv_rows(path: Path) -> Iterator[Row]:
    """Line numbers (of a row's last line, from 1) and rows of a CSV file with a header line.

    Raises:
        InputError: it does not exist, is in another encoding, or is not CSV.
    """
    found = records(text_lines(path), ",")
    _, names, _ = next(found, (0, [], ""))
    for number, fields, _ in found:
        yield number, dict(zip(names, fields, strict=False))


def jsonl_rows(path: Path, errors: str = "strict") -> Iterator[Row]:
    """Line numbers, from 1, and the objects of a file with one JSON object a line; blank lines are passed over.

    Args:
        path: the file.
        errors: what becomes of bytes that are not in the file's encoding, as in `bytes.decode`.

    Raises:
        InputError: it does not exist, or a line is in another encoding (with "strict") or not a JSON object.
    """
    for number, line in enumerate(text_lines(path, errors, longest=None), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is not a JSON object: each line holds one")
        yield number, row


def text_lines(path: Path, errors: str = "strict", longest: int | None = _MOST_CHARACTERS) -> Iterator[str]:
    """The lines of a text file, with their ends; its encoding is UTF-8 or what its byte order mark says.

    Args:
        path: the file.
        errors: what becomes of bytes that are not in the encoding, as in `open`.
        longest: characters of a line; None: any.

    Raises:
        InputError: it does not exist, is no text in such an encoding, or a line is longer.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one of the files in it")
    number = 0
    try:
        with path.open("rb") as file:
            beginning = file.read(64)
        encoding = encoding_of(beginning)
        if encoding == "utf-8" and beginning.count(0) * 4 > len(beginning):  # UTF-16 or UTF-32
            raise InputError(f"{path} is not UTF-8, and has no byte order mark that says what it is: save it as UTF-8")
        with path.open(encoding=encoding, errors=errors if encoding.startswith("utf-8") else "strict", newline="") as f:
            while line := f.readline() if longest is None else f.readline(longest):
                number += 1
                if len(line) == longest:
                    raise InputError(f"{path}, line {number} cannot be read as CSV (above {longest:,} characters)")
                yield line
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except UnicodeError:
        raise InputError(f"{path} is not {encoding.upper()[:6]} after line {number}: save it as UTF-8") from None
