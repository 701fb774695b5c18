"""Writes finished records in the TagMask layout that `ttd eval tagmask` reads (`ttd.evaluation.datasets.tagmask`).

    SET/images/ID.jpg   SET/masks/ID.png   SET/masks/ID/WORD.png   SET/tags.jsonl

The files of an accepted item are written before the page reports it as saved. A kill in between leaves a record that is
newer than these files; `repair`, called when a set is opened, writes them again. Whatever a record contains, nothing
outside of the set is written or removed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np

from ttd.annotate.records import Record, mask_png
from ttd.data.rows import jsonl_rows
from ttd.files import write_file
from ttd.files.safe_paths import check_name, inside, word_file
from ttd.files.schema import fields, text
from ttd.images import opened, read_image

_ROW = fields({"id": text})
_COPIED_FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


def image_file(identifier: str, encoded: bytes) -> tuple[str, bytes]:
    """Name and content of an item's image: the bytes as they are, or a PNG where `ttd eval` cannot read the format."""
    with opened(BytesIO(encoded)) as image:
        ending = _COPIED_FORMATS.get(image.format or "")
        if ending is not None:
            return f"{identifier}{ending}", encoded
        stream = BytesIO()
        read_image(image, identifier).save(stream, format="PNG")
    return f"{identifier}.png", stream.getvalue()


def write_image(root: Path, name: str, content: bytes) -> None:
    """Writes `images/NAME` where it is not there yet."""
    path = inside(root, "images", name)
    if not path.is_file() or path.stat().st_size != len(content):
        write_file(path, content)


class Exporter:
    """Writes the files that follow from the records; use it inside the store's lock.

    Args:
        root: the set's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def export(self, record: Record) -> None:
        """Writes the row, the union and the masks of one record, or removes them where it is not finished.

        A reader in between finds no row for the item, never a row with the masks of another version.
        """
        rows = self._rows()
        if rows.pop(record.id, None) is not None:
            # Removed first, so that a reader never finds old words with new masks.
            self._write_rows(rows)
        self._write_masks(record)
        if record.finished:
            rows[record.id] = tagmask_row(record)
            self._write_rows(rows)

    def repair(self, records: Iterable[Record]) -> int:
        """Brings the files of all records up to date; returns for how many records files were written again."""
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
        path = inside(self.root, "tags.jsonl")
        if not path.exists():
            return {}
        remedy = "remove it, and it is written again from the annotations at the next start"
        return {row["id"]: row for _, row in jsonl_rows(path, schema=_ROW, remedy=remedy)}

    def _write_rows(self, rows: dict[str, dict[str, object]]) -> None:
        text = "".join(json.dumps(rows[identifier]) + "\n" for identifier in sorted(rows))
        write_file(inside(self.root, "tags.jsonl"), text)

    def _mask_files(self, record: Record) -> dict[Path, np.ndarray]:
        """The union and each word's mask by path; empty for an item that is not finished."""
        if not record.finished or not record.masks:
            return {}
        union = np.any(list(record.masks.values()), axis=0)
        path, folder = self._mask_paths(record.id)
        words = {inside(folder, f"{word_file(word)}.png"): mask for word, mask in record.masks.items()}
        return {path: union, **words}

    def _has_masks(self, record: Record) -> bool:
        """Whether exactly the right mask files exist; their content is that of the row's version, as rows come last."""
        return set(self._existing(record.id)) == set(self._mask_files(record))

    def _existing(self, identifier: str) -> list[Path]:
        union, folder = self._mask_paths(identifier)
        return [*([union] if union.is_file() else []), *folder.glob("*.png")]

    def _mask_paths(self, identifier: str) -> tuple[Path, Path]:
        """The file of an item's union, and the folder of its words' masks."""
        check_name(identifier, f"an annotation of {self.root}")
        return inside(self.root, "masks", f"{identifier}.png"), inside(self.root, "masks", identifier)

    def _write_masks(self, record: Record) -> None:
        wanted = self._mask_files(record)
        for path, mask in wanted.items():
            write_file(path, mask_png(mask))
        for path in self._existing(record.id):
            if path not in wanted:
                path.unlink()
        if not wanted:
            shutil.rmtree(self._mask_paths(record.id)[1], ignore_errors=True)


def tagmask_row(record: Record) -> dict[str, object]:
    """The line of `tags.jsonl`; `version` is that of the record from which the mask files were written."""
    return {
        "id": record.id,
        "caption": record.caption,
        "words": list(record.words),
        "true": list(record.true),
        "version": record.version,
    }
