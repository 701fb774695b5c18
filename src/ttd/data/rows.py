"""Rows of CSV, TSV and JSONL files: where each begins, and its fields by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttd.errors import InputError

Row = tuple[int, dict[str, Any]]


def read_rows(path: Path, errors: str = "strict") -> Iterator[Row]:
    """The rows of a .jsonl, .csv or .tsv file, by its ending; see `jsonl_rows` and `csv_rows`."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        return jsonl_rows(path, errors)
    return csv_rows(path, "\t" if kind == ".tsv" else ",", errors)


def csv_rows(path: Path, delimiter: str = ",", errors: str = "strict") -> Iterator[Row]:
    """Line numbers (of a row's last line, from 1) and rows of a file with a header line, UTF-8.

    Args:
        path: the file.
        delimiter: between the columns.
        errors: what becomes of bytes that are not UTF-8, as in `open`.

    Raises:
        InputError: it does not exist, is not UTF-8 (with "strict"), or is not CSV.
    """
    _check_file(path)
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter)
        try:
            for row in reader:
                yield reader.line_num, {name: text for name, text in row.items() if name}
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} cannot be read as CSV ({error}): correct it") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is not UTF-8 after line {reader.line_num}: save it as UTF-8") from None


def jsonl_rows(path: Path, errors: str = "strict") -> Iterator[Row]:
    """Line numbers, from 1, and the objects of a file with one JSON object a line; blank lines are passed over.

    Args:
        path: the file.
        errors: what becomes of bytes that are not UTF-8, as in `bytes.decode`.

    Raises:
        InputError: it does not exist, or a line is not UTF-8 (with "strict") or not a JSON object.
    """
    _check_file(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8", errors))
            except UnicodeDecodeError:
                raise InputError(f"{path}, line {number} is not UTF-8: save the file as UTF-8") from None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} is not a JSON object: each line holds one")
            yield number, row


def field_names(path: Path) -> set[str]:
    """The names, in lower case, in a CSV or TSV file's header or of the first object of JSON lines.

    Raises:
        InputError: as the readers.
    """
    if path.suffix.lower() == ".jsonl":
        first = next((row for _, row in jsonl_rows(path, "replace")), {})
        return {name.strip().lower() for name in first}
    _check_file(path)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        header = lines.readline(1 << 16)
    names = next(csv.reader([header], delimiter="\t" if path.suffix.lower() == ".tsv" else ","), [])
    return {name.strip().lower() for name in names}


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one of the files in it")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
