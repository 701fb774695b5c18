"""Rows of CSV, TSV and JSONL files: where each ends, and its fields by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttd.data.csv_records import records
from ttd.data.text_files import encoding_of
from ttd.errors import InputError
from ttd.files.documents import parse_json, refused
from ttd.files.schema import Schema, fields

Row = tuple[int, dict[str, Any]]
_MOST_CHARACTERS = 1 << 17  # of a line of CSV: more is another kind of file
_LONGEST = 1 << 26  # characters of a line of JSON
_OBJECT = fields({})
_REMEDY = "correct it; each line holds one JSON object"


def csv_rows(path: Path) -> Iterator[Row]:
    """Line numbers (of a row's last line, from 1) and rows of a CSV file with a header line.

    Raises:
        InputError: it does not exist, is in another encoding, or is not CSV.
    """
    found = records(text_lines(path), ",")
    _, names, _ = next(found, (0, [], ""))
    for number, cells, _ in found:
        yield number, dict(zip(names, cells, strict=False))


def jsonl_rows(
    path: Path, errors: str = "strict", schema: Schema | None = None, remedy: str = _REMEDY
) -> Iterator[Row]:
    """Line numbers, from 1, and the objects of a file with one JSON object a line; blank lines are passed over.

    Args:
        path: the file.
        errors: what becomes of bytes that are not in the file's encoding, as in `bytes.decode`.
        schema: of each object; None: any.
        remedy: ends what is said of a line that is something else.

    Raises:
        InputError: it does not exist, or a line is in another encoding (with "strict"), not a JSON object, or does not
            fit.
    """
    for number, line in enumerate(text_lines(path, errors, longest=_LONGEST), 1):
        if not line.strip():
            continue
        with refused(f"{path}, line {number}", remedy):
            # Python writes NaN, and so do the programs that make data sets.
            row = parse_json(line, _OBJECT, nan=True)
            if schema is not None:
                schema(row)
        yield number, row


def text_lines(path: Path, errors: str = "strict", longest: int = _MOST_CHARACTERS) -> Iterator[str]:
    """The lines of a text file, with their ends; its encoding is UTF-8 or what its byte order mark says.

    Args:
        path: the file.
        errors: what becomes of bytes that are not in the encoding, as in `open`.
        longest: characters of a line.

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
            while line := f.readline(longest):
                number += 1
                if len(line) == longest:
                    raise InputError(f"{path}, line {number} is longer than {longest:,} characters: give another file")
                yield line
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except UnicodeError:
        raise InputError(f"{path} is not {encoding.upper()[:6]} after line {number}: save it as UTF-8") from None
