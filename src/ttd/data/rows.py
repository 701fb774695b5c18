"""Rows of CSV, TSV and JSONL files as people have them: their encoding, where each row ends, its fields by name.

Python's `csv` follows an opening quote until any later one, over any number of rows. Here a quoted field may
hold the delimiter, doubled quotes and line ends, but it must be closed where a field ends, and it never swallows what
is a row of its own; else the quote is a character like any other. COCO's rows are in one JSON object.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ttd.errors import InputError
from ttd.files.documents import parse_json, read_json, refused
from ttd.files.schema import Schema, any_text, each, either, fields, integer, text, within

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(beginning: bytes) -> str:
    """The name of the codec for a text that begins so; it leaves the mark out."""
    return next((name for mark, name in _MARKS if beginning.startswith(mark)), "utf-8")


def decoded(data: bytes) -> str:
    """A whole text file's text.

    Raises:
        UnicodeError: it is in no encoding that is known, UTF-16 without a mark included.
    """
    text = data.decode(encoding_of(data))
    if text.count("\0") * 4 > len(text):  # every other byte of UTF-16
        raise UnicodeError(f"character {text.index(chr(0))} is NUL: UTF-16 without a byte order mark?")
    return text


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
        remedy: ends the message about a line that is something else.

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
        InputError: it does not exist, is not text in such an encoding, or a line is longer.
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


_MOST_LINES = 200  # of one row: quotes that close later do not belong together
_QUOTES = re.compile('"+')

Record = tuple[int, list[str], str]


def records(
    lines: Iterator[str],
    delimiter: str,
    *,
    first: int = 1,
    always_quoted: bool = True,
    is_row: Callable[[list[str]], bool] = lambda fields: False,
) -> Iterator[Record]:
    """The number of its last line (from `first`), the fields and the text of each row; blank lines are passed over.

    Args:
        lines: with or without their ends.
        delimiter: between the fields.
        first: the number of the first of `lines`.
        always_quoted: whether quotes around a field that needs none are not part of it. A TSV file of the field has no
            quoting, and `"hello"` is spoken text.
        is_row: whether the fields of one line are a whole row: a quoted field holds at most one such line.
    """
    waiting: list[str] = []
    number = first - 1
    while True:
        line = waiting.pop(0) if waiting else next(lines, None)
        if line is None:
            return
        number += 1
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if '"' not in text:
            yield number, text.split(delimiter), text
            continue
        fields, taken = _split(text, delimiter, always_quoted), 0
        if fields is None:
            waiting += islice(lines, _MOST_LINES - len(waiting))
            fields, taken = _over_lines(text, waiting, delimiter, always_quoted, is_row)
        del waiting[:taken]
        number += taken
        yield number, fields or text.split(delimiter), "" if taken else text


def split_record(text: str, delimiter: str) -> list[str]:
    """The fields of one line."""
    return _split(text, delimiter, True) or text.split(delimiter)


def _split(text: str, delimiter: str, always_quoted: bool) -> list[str] | None:
    """The fields of a row; None where a quote is open at its end, [] where its quotes do not quote."""
    fields: list[str] = []
    at = 0
    while True:
        if text.startswith('"', at):
            end = _closing(text, at + 1)
            if end < 0:
                return None
            if end + 1 < len(text) and not text.startswith(delimiter, end + 1):
                return []
            inner = text[at + 1 : end]
            needed = always_quoted or any(mark in inner for mark in (delimiter, '"', "\n"))
            fields.append(inner.replace('""', '"') if needed else text[at : end + 1])
            at = end + 1
        else:
            end = text.find(delimiter, at)
            fields.append(text[at:] if end < 0 else text[at:end])
            at = len(text) if end < 0 else end
        if at >= len(text):
            return fields
        at += len(delimiter)
        if at >= len(text):
            return [*fields, ""]


def _closing(text: str, at: int) -> int:
    """Where a quoted field that begins at `at` is closed; -1 where it is not."""
    for found in _QUOTES.finditer(text, at):
        if len(found[0]) % 2:
            return found.end() - 1
    return -1


def _over_lines(
    text: str, following: list[str], delimiter: str, always_quoted: bool, is_row: Callable[[list[str]], bool]
) -> tuple[list[str] | None, int]:
    """The fields of a row that goes on in the next lines, and how many of these it takes; None and 0 where none do."""
    rows = int(is_row(text.split(delimiter)))
    for taken, line in enumerate(following, 1):
        line = line.rstrip("\r\n")
        text = f"{text}\n{line}"
        rows += is_row(line.split(delimiter))
        if rows > 1:
            break
        fields = _split(text, delimiter, always_quoted)
        if fields is not None:
            return (fields, taken) if fields else (None, 0)
    return None, 0


_MOST_BYTES = 1 << 33
_NUMBER = either(integer, text)
_SIDE = within(1, 1 << 16, integer)
_ENTRIES = {
    "images": fields({}, {"id": _NUMBER, "file_name": any_text, "height": _SIDE, "width": _SIDE}),
    "annotations": fields({}, {"id": _NUMBER, "image_id": _NUMBER, "category_id": _NUMBER}),
    "categories": fields({}, {"id": _NUMBER, "name": text}),
}


def read_coco_json(path: Path, keys: Sequence[str], advice: str = "give COCO's official annotations") -> dict[str, Any]:
    """A file's object, which has `keys`, lists of objects; `advice` ends the message about a file without them.

    Raises:
        InputError: it does not exist, or is no such file.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: get COCO's annotations and name their file")
    schema = fields({key: each(_ENTRIES[key]) for key in keys})
    content: dict[str, Any] = read_json(path, schema, remedy=advice, most=_MOST_BYTES, nan=True)
    return content
