"""CSV and TSV as people have them: quotes that open and never close, captions with commas and no quotes.

Python's `csv` follows an opening quote until any later one, over as many rows as lie between. Here a quoted field may
hold the delimiter, doubled quotes and line ends, but it must be closed where a field ends, and it never swallows what
is a row of its own; else the quote is a character like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

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
        always_quoted: whether quotes around a field that needs none are no part of it. A TSV file of the field has no
            quoting, and `"hello"` is what somebody said.
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
    """The fields of a row; None where a quote is open at its end, [] where its quotes are no quoting."""
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
