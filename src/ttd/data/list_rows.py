"""A list of images with captions as rows with known names, whatever its columns, delimiter or header are.

Read are CSV and TSV with a header line, or without one where a column holds images' paths or web addresses (CC3M,
CC12M); semicolons, tabs and bars (`results.csv` of Flickr30k); Excel's `sep=` line; JSON lines; and the Parquet of
LAION and img2dataset.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ttd.data.listing import is_image_file
from ttd.data.rows import jsonl_rows, records, split_record, text_lines
from ttd.data.shard import CAPTION_NAMES
from ttd.errors import InputError

log = logging.getLogger(__name__)

WEB_NAMES = ("url", "image_url")
IMAGE_NAMES = (
    "image", "file_name", "filename", "filepath", "file", "path", "img", "image_name", "image_path", *WEB_NAMES,
)  # fmt: skip
TEXT_NAMES = (*CAPTION_NAMES, "comment")
_OTHERS = ("id", "tags", "key", "status")  # columns of Parquet that are read too
_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """Why a line is not a row."""

    detail: str


def is_web_address(text: str) -> bool:
    """Whether a path is the address of an image that was not fetched."""
    return text.startswith(("http://", "https://"))


def list_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """Numbers of lines, from 1, and their fields by name in lower case, or why a line is not a row.

    Raises:
        InputError: the file cannot be read, or its header names no image.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet_rows(path)
    elif kind == ".jsonl":
        for number, row in jsonl_rows(path, "surrogateescape"):
            yield number, {name.strip().lower(): value for name, value in row.items()}
    else:
        yield from _table_rows(path)


def list_names(path: Path) -> set[str]:
    """The names, in lower case, of a list's columns, or of the fields of its first object.

    Raises:
        InputError: as `list_rows`.
    """
    if path.suffix.lower() == ".jsonl":
        first = next((row for _, row in jsonl_rows(path, "surrogateescape")), {})
        return {name.strip().lower() for name in first}
    return set(_dialect(path, list(islice(text_lines(path, "surrogateescape"), 2))).names)


@dataclass(frozen=True)
class _Dialect:
    """How a table is written: `before` lines stand before its rows; TSV without quotes has none at all."""

    delimiter: str
    names: tuple[str, ...]
    before: int
    quoted: bool

    @property
    def image(self) -> int:
        """The number of the image's column."""
        return next(self.names.index(name) for name in IMAGE_NAMES if name in self.names)

    def is_row(self, fields: list[str]) -> bool:
        """Whether the pieces of a line are a whole row: as many as there are columns, with an image among them."""
        return len(fields) >= len(self.names) and looks_like_image(fields[self.image])


def looks_like_image(text: str) -> bool:
    """Whether a field is an image's path or web address."""
    text = text.strip().strip('"')
    return is_web_address(text) or (len(text) < 1000 and is_image_file(Path(text)))


def _dialect(path: Path, start: list[str]) -> _Dialect:
    """From a file's first two lines."""
    before, delimiters = 0, _DELIMITERS[path.suffix.lower()]
    if start and (said := _SEPARATOR.fullmatch(start[0])):
        before, delimiters = 1, said[1]
    header = start[before].rstrip("\r\n") if len(start) > before else ""
    for delimiter in delimiters:
        names = tuple(name.strip().lower() for name in split_record(header, delimiter))
        if not set(names).isdisjoint(IMAGE_NAMES):
            quoted = delimiter != "\t" or (header.startswith('"') and header.endswith('"'))
            return _Dialect(delimiter, names, before + 1, quoted)
    for delimiter in delimiters:
        fields = split_record(header, delimiter)
        images = [looks_like_image(field) for field in fields]
        if len(fields) > 1 and any(images):
            return _Dialect(
                delimiter, _without_header(fields, images.index(True), delimiter), before, delimiter != "\t"
            )
    raise InputError(
        f"{path} names no image: its header is {header[:100]!r}, and one column must be called "
        f"{', '.join(IMAGE_NAMES[:-1])} or {IMAGE_NAMES[-1]}"
    )


def _without_header(fields: list[str], image: int, delimiter: str) -> tuple[str, ...]:
    """Names of the columns of a file without a header: the image, the caption (the longest other), the rest."""
    if image == 0 and delimiter != "\t":  # what parts the rest may be the caption's own
        return "image", "caption"
    longest = max((number for number in range(len(fields)) if number != image), key=lambda n: len(fields[n]))
    return tuple(
        "image" if number == image else "caption" if number == longest else f"column {number + 1}"
        for number in range(len(fields))
    )


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    lines = text_lines(path, "surrogateescape")
    start = list(islice(lines, 2))
    how = _dialect(path, start)
    found = records(
        chain(start[how.before :], lines),
        how.delimiter,
        first=how.before + 1,
        always_quoted=how.quoted,
        is_row=how.is_row,
    )
    for number, fields, text in found:
        yield number, _row(how, fields, text)


def _row(how: _Dialect, fields: list[str], text: str) -> dict[str, Any] | Fault:
    """The fields by name; what is too many belongs to a caption that stands last."""
    count = len(how.names)
    if len(fields) > count and not any(field.strip() for field in fields[count:]):
        fields = fields[:count]  # delimiters at the end of the line
    if len(fields) > count:
        if how.names[-1] not in TEXT_NAMES:
            return Fault(f"has {len(fields)} fields and the header {count}: put the caption into quotes")
        pieces = text.split(how.delimiter)[: count - 1]
        literal = text and not any(piece.startswith('"') for piece in pieces)
        last = text.split(how.delimiter, count - 1)[-1] if literal else how.delimiter.join(fields[count - 1 :])
        fields = [*fields[: count - 1], last]
    return dict(zip(how.names, (field.strip() for field in fields), strict=False))


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Fault]]:
    """The rows of LAION's or img2dataset's Parquet. An image that img2dataset wrote lies in STEM/KEY.jpg."""
    from ttd.data.tables import column_names, read_table

    known = {name.lower(): name for name in column_names(path)}
    if set(known).isdisjoint(IMAGE_NAMES):
        raise InputError(
            f"{path} names no image: its columns are {', '.join(known)}, and one must be called "
            f"{', '.join(IMAGE_NAMES[:-1])} or {IMAGE_NAMES[-1]}"
        )
    wanted = [name for lower, name in known.items() if lower in (*IMAGE_NAMES, *TEXT_NAMES, *_OTHERS)]
    fetched = {"key", "status"} <= set(known)
    number = lost = 0
    for batch in read_table(path, wanted):
        for given in batch.to_pylist():
            number += 1
            row = {name.lower(): value for name, value in given.items()}
            if fetched and row["status"] != "success":
                lost += 1
                continue
            if fetched and isinstance(row["key"], str):
                row["image"] = f"{path.stem}/{row['key']}.jpg"
            yield number, row
    if lost:
        log.warning("%s: left out %d of %d images, which img2dataset could not fetch.", path, lost, number)
