"""A folder of images with a captions file: CSV, TSV, JSONL, or COCO captions JSON.

Captions of one image are kept together, also where they stand on several lines.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ttd.data.bad_samples import MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.captions import NoCaption, from_record, usable
from ttd.data.tar_shard import MOST_BYTES, shard_name
from ttd.errors import InputError
from ttd.safe_paths import file_below

IMAGE_NAMES = ("image", "file_name", "filename", "filepath", "file", "path", "img")


class FolderShard:
    """See `ttd.data.tar_shard.Shard`; a key is the image's path as the captions file has it.

    Args:
        path: the captions file.
        images: the folder that the image's paths start from; None: the captions file's own. Images outside of it
            count as missing, for whoever writes a captions file must not choose among this machine's files.

    Raises:
        InputError: the file is no captions file, or names no image in `images`.
    """

    damage: BadSample | None = None

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path = path
        self.name = shard_name(path)
        self.images = images or path.parent
        self.size = path.stat().st_size
        self._captions: dict[str, list[str] | NoCaption] = {}
        rows = _coco(path) if path.suffix.lower() == ".json" else _lines(path)
        for image, texts in rows:
            known = self._captions.setdefault(image, texts)
            if known is not texts and not isinstance(texts, NoCaption):
                if isinstance(known, NoCaption):
                    self._captions[image] = texts
                else:
                    known += texts
        if not self._captions:
            raise InputError(f"{path} names no image: each line needs an image and a caption")
        self._keys = list(self._captions)
        if not any(file_below(self.images, key) for key in self._keys):
            raise InputError(
                f"{path}: the image {self._keys[0]!r} and all others lie outside {self.images}: name the folder that "
                "holds them (--images), and write their paths from there or in full"
            )

    def __len__(self) -> int:
        """Images."""
        return len(self._keys)

    def keys(self) -> pa.Array:
        """All images' paths, in the order of the file."""
        return pa.array(self._keys, pa.string())

    def key(self, row: int) -> str:
        """An image's path."""
        return self._keys[row]

    def captions(self, row: int) -> tuple[str, ...]:
        """At least one caption."""
        texts = self._captions[self._keys[row]]
        try:
            if isinstance(texts, NoCaption):
                raise texts
            return usable(dict.fromkeys(texts))
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self._keys[row], error.detail) from None

    def image_bytes(self, row: int) -> bytes:
        """The encoded image."""
        key = self._keys[row]
        image = file_below(self.images, key)
        if image is None:
            raise BadSample(MISSING_IMAGE, self.name, key, f"its path leads out of {self.images}")
        try:
            with image.open("rb") as file:
                return file.read(MOST_BYTES)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise BadSample(MISSING_IMAGE, self.name, key, detail) from None

    def record(self, row: int) -> dict[str, Any]:
        """Nothing."""
        return {}

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """None are read from captions files."""
        raise InputError(f"{self.path} carries no words for its captions: name a file or folder of words with --tags")


_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half characters that stand for no byte of the file
Row = tuple[str, "list[str] | NoCaption"]


def _coco(path: Path) -> Iterator[Row]:
    """`images` with id and file_name, `annotations` with image_id and caption."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
        names = {image["id"]: _key(str(image["file_name"])) for image in content["images"]}
        found: dict[Any, list[str]] = {number: [] for number in names}
        for annotation in content["annotations"]:
            found[annotation["image_id"]].append(str(annotation["caption"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{path} is no COCO captions file, which has "images" and "annotations" with captions '
            f"({type(error).__name__}: {error}): convert it, or give CSV or JSONL"
        ) from None
    for number, name in names.items():
        yield name, found[number] if found[number] else NoCaption(MISSING_CAPTION)


def _lines(path: Path) -> Iterator[Row]:
    """One image per line; lines of one image add up."""
    for number, record in _records(path):
        image = next((record[name] for name in IMAGE_NAMES if record.get(name)), None)
        if not isinstance(image, str):
            raise InputError(
                f"{path}, line {number} names no image: give it one of the fields {', '.join(IMAGE_NAMES)}"
            )
        yield _key(image), _texts(record)


def _key(image: str) -> str:
    """An image's path as Unicode, with replacement marks for what is none."""
    return _NO_BYTE.sub("\ufffd", image).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _texts(record: dict[str, Any]) -> list[str] | NoCaption:
    # The file is read with surrogate escapes, so a line in another encoding costs only its own pair.
    try:
        return list(from_record(record))
    except NoCaption as error:
        return error


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        if path.suffix.lower() == ".jsonl":
            yield from _json_lines(path, lines)
            return
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            for row in reader:
                yield reader.line_num, {name.strip().lower(): text for name, text in row.items() if name}
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} cannot be read as CSV ({error})") from None


def _json_lines(path: Path, lines: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number} is no JSON object: each line holds one")
        yield number, record
