"""Finished records -> the TagMask layout that `ttd eval tagmask` reads (see `ttd.evaluation.datasets.tagmask`).

    SET/images/ID.jpg   SET/masks/ID.png   SET/masks/ID/WORD.png   SET/tags.jsonl

An accepted item has its files here before the page says so. A kill in between leaves a record that is newer than
these files; `repair`, called when a set is opened, writes them again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ttd.annotate.records import Record, mask_png
from ttd.errors import InputError
from ttd.files import whole_file

_MOST_BYTES = 120
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def item_id(shard: str, key: str, caption: int | None = None) -> str:
    """The id of a pair: the readable part of its key, and a digest of shard, key and number of the caption.

    It depends on nothing else, so it stays the same when data are added, and for another annotator of the same data.
    """
    place = f"{shard}\0{key}" if caption is None else f"{shard}\0{key}\0{caption}"
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    last = re.split(r"[/\\]", key)[-1]
    stem = last.rsplit(".", 1)[0] or last
    readable = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:60]
    return f"{readable or 'item'}-{digest}"


def word_file(word: str) -> str:
    """The name, without its ending, of the file of a word's mask.

    Letters and digits of any script, "-", "_" and "'" stay; everything else becomes %XX as in a web address. A name
    that is too long for a file system ends in a digest.
    """
    text = word.lower()
    name = "".join(char if char.isalnum() or char in "-_'" else _percent(char) for char in text)
    if _RESERVED.fullmatch(name):  # Windows knows these as devices
        name = _percent(name[0]) + name[1:]
    if len(name.encode("utf-8", "surrogatepass")) <= _MOST_BYTES:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{name[:20]}-{digest}"


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


_AS_THEY_ARE = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


def image_file(identifier: str, encoded: bytes, image: Image.Image) -> tuple[str, bytes]:
    """Name and content of an item's image: its own bytes, or a PNG where `ttd eval` would not know the format."""
    with Image.open(BytesIO(encoded)) as opened:
        ending = _AS_THEY_ARE.get(opened.format or "")
    if ending is not None:
        return f"{identifier}{ending}", encoded
    stream = BytesIO()
    image.save(stream, format="PNG")
    return f"{identifier}.png", stream.getvalue()


def write_image(root: Path, name: str, content: bytes) -> None:
    """Writes `images/NAME` where it is not there yet."""
    path = root / "images" / name
    if not path.is_file() or path.stat().st_size != len(content):
        _write(path, content)


class Exporter:
    """Keeps the layout in step with the records; use it inside the store's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, record: Record) -> None:
        """Writes, or takes away, what follows from one record.

        A reader between two steps sees a row without its mask files rather than another row's.
        """
        rows = self._rows()
        if rows.pop(record.id, None) is not None:
            # Taken out first: masks and words change together for whoever reads the set meanwhile.
            self._write_rows(rows)
        self._write_masks(record)
        if record.finished:
            rows[record.id] = tagmask_row(record)
            self._write_rows(rows)

    def repair(self, records: Iterable[Record]) -> int:
        """Brings the files of all records up to date, and gives the number of records that had to be done again."""
        rows, wanted, changed = self._rows(), {}, 0
        for record in records:
            row = tagmask_row(record) if record.finished else None
            if row is not None:
                wanted[record.id] = row
            if rows.get(record.id) != row or not self._has_masks(record):
                self._write_masks(record)
                changed += 1
        if rows != wanted or (wanted and list(rows) != sorted(wanted)):
            self._write_rows(wanted)
        return changed

    def _rows(self) -> dict[str, dict[str, object]]:
        path = self.root / "tags.jsonl"
        if not path.exists():
            return {}
        try:
            rows = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            return {str(row["id"]): row for row in rows}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} is damaged: remove it, and it is written again from the annotations at the next start"
            ) from None

    def _write_rows(self, rows: dict[str, dict[str, object]]) -> None:
        text = "".join(json.dumps(rows[identifier]) + "\n" for identifier in sorted(rows))
        _write(self.root / "tags.jsonl", text.encode("ascii"))

    def _mask_files(self, record: Record) -> dict[Path, np.ndarray]:
        """The union and each word's mask, under their names; nothing for an item that is not finished."""
        if not record.finished or not record.masks:
            return {}
        folder = self.root / "masks"
        union = np.any(list(record.masks.values()), axis=0)
        words = {folder / record.id / f"{word_file(word)}.png": mask for word, mask in record.masks.items()}
        return {folder / f"{record.id}.png": union, **words}

    def _has_masks(self, record: Record) -> bool:
        """Whether all mask files are there; their content is the row's version, which is written after them."""
        return set(self._there(record.id)) == set(self._mask_files(record))

    def _there(self, identifier: str) -> list[Path]:
        folder = self.root / "masks"
        union = folder / f"{identifier}.png"
        return [*([union] if union.is_file() else []), *(folder / identifier).glob("*.png")]

    def _write_masks(self, record: Record) -> None:
        wanted = self._mask_files(record)
        for path, mask in wanted.items():
            _write(path, mask_png(mask))
        for path in self._there(record.id):
            if path not in wanted:
                path.unlink()
        if not wanted:
            shutil.rmtree(self.root / "masks" / record.id, ignore_errors=True)


def tagmask_row(record: Record) -> dict[str, object]:
    """The line of `tags.jsonl`; the version says which record the mask files belong to."""
    return {
        "id": record.id,
        "caption": record.caption,
        "words": list(record.words),
        "true": list(record.true),
        "version": record.version,
    }


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)
