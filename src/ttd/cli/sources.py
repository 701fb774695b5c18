"""What a command runs on: one image, a folder of images, or a list file (JSONL or CSV)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttd.data.listing import caption_file, images_in
from ttd.errors import InputError

LISTS = frozenset({".jsonl", ".csv"})


@dataclass(frozen=True)
class Item:
    """An image and what is asked about it.

    Attributes:
        id: names the item in results: the path inside the folder, the list's `id`, or its `image`.
        image: the file.
        caption: None where there is none.
        tags: the caller's own words, empty where there are none.
    """

    id: str
    image: Path
    caption: str | None = None
    tags: tuple[str, ...] = ()


def is_many(source: str) -> bool:
    """Whether `source` is a folder or a list file instead of one image."""
    path = Path(source)
    return path.is_dir() or path.suffix.lower() in LISTS


def check_no_shards(source: str) -> None:
    """Raise InputError where `source` names tar shards, which the commands on images do not read."""
    path = Path(source)
    if path.suffix.lower() == ".tar" or (path.is_dir() and any(path.glob("*.tar")) and not images_in(path)):
        raise InputError(
            f"{source} names tar shards, and this command reads images, folders of them and lists: `ttd data tag` "
            "selects words in shards."
        )


def read_items(source: str, caption: str | None, tags: tuple[str, ...], out: str | None = None) -> list[Item]:
    """All items of a folder or a list file, in a fixed order; `caption` and `tags` are for those without
    their own.

    Raises:
        InputError: nothing there, a line that is no record, two items with one id.
    """
    path = Path(source)
    found = _folder(path, out) if path.is_dir() else _list(path)
    items = [replace(i, caption=i.caption or caption, tags=i.tags or tags) for i in found]
    if not items:
        raise InputError(f"There is no image in {path}; give a folder of images, a JSONL or a CSV file.")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError(f'{path} names "{item.id}" twice; give each line its own "id".')
        seen.add(item.id)
    return items


def _folder(folder: Path, out: str | None) -> Iterator[Item]:
    """Images in a folder and its subfolders, without those that an earlier run put into `out`."""
    ours = Path(out).resolve() if out else None
    for path in images_in(folder):
        if ours and ours != folder.resolve() and path.resolve().is_relative_to(ours):
            continue
        text = caption_file(path)
        caption = text.read_text("utf-8", errors="replace").strip() if text.is_file() else None
        yield Item(path.relative_to(folder).as_posix(), path, caption)


def _list(path: Path) -> Iterator[Item]:
    """The records of a list file; images are named relative to the file's folder."""
    if not path.is_file():
        raise InputError(f"There is no list file {path}; check the path.")
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    for number, row in rows:
        image, caption, tags = row.get("image"), row.get("caption"), row.get("tags")
        if not isinstance(image, str) or not image:
            raise InputError(f'{path}, line {number}: there is no "image"; give each line the path of an image.')
        if isinstance(tags, str):
            tags = tags.replace(";", ",").split(",")
        if not isinstance(caption or "", str) or not all(isinstance(tag, str) for tag in tags or ()):
            raise InputError(f'{path}, line {number}: "caption" is a text and "tags" a list of texts.')
        words = tuple(tag.strip() for tag in tags or () if tag.strip())
        yield Item(str(row.get("id") or image), path.parent / image, (caption or "").strip() or None, words)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number} is not a JSON object; each line holds one.")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} cannot be read as CSV ({error}).") from None
