"""A list of images with captions: CSV, TSV, JSONL, Parquet, or COCO captions JSON.

Captions of one image are kept together, also if they are on several lines.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttd.data.bad_samples import BROKEN_JSON, BROKEN_LINE, MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.list_rows import IMAGE_NAMES, TEXT_NAMES, Fault, is_web_address, list_names, list_rows
from ttd.data.rows import read_coco_json
from ttd.data.shard import MOST_BYTES, NoCaption, PathKeys, from_record, shard_name, texts_of, usable
from ttd.errors import InputError
from ttd.files.safe_paths import file_below

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedLine:
    """A line about an image that has an id or tags, for the commands that work on one line after the other.

    Attributes:
        id: as written, None where there is none.
        captions: possibly none, or why they cannot be used.
        tags: words to be asked about, possibly none, or why they cannot be used.
    """

    id: str | None
    captions: tuple[str, ...] | NoCaption
    tags: tuple[str, ...] | NoCaption


class CaptionsFile(PathKeys):
    """See `ttd.data.shard.Shard`; a key is the image's path as the file has it, "line N" for a line that is not a row.

    Args:
        path: the captions file.
        images: the folder that the images' paths start from; None: the captions file's own.
        own_list: whether it is a list that is worked off line by line: ids and tags of its lines are kept, and images
            may be anywhere. Otherwise images outside of that folder count as missing, for a file that was handed on
            must not choose among this machine's files what is copied into a data set.

    Raises:
        InputError: the file is not a captions file, or names no image in `images`.
    """

    damage: BadSample | None = None

    def __init__(self, path: Path, images: Path | None = None, *, own_list: bool = False) -> None:
        self.path = path
        self.name = shard_name(path)
        self.images = images or path.parent
        self.size = path.stat().st_size
        self._own_list = own_list
        self._captions: dict[str, list[str] | NoCaption] = {}
        self._lines: dict[str, list[ListedLine]] = {}
        for image, texts, line in _coco(path) if path.suffix.lower() == ".json" else _listed(path):
            self._add(image, texts)
            if line is not None and own_list:
                self._lines.setdefault(image, []).append(line)
        if not self._captions:
            raise InputError(f"{path} names no image: each line needs an image and a caption")
        self._keys = list(self._captions)
        if all(self._is_broken(key) for key in self._keys):
            named = self._captions[self._keys[0]]
            assert isinstance(named, NoCaption)
            raise InputError(f"{path}, {self._keys[0]} {named.detail}")
        if not own_list and not any(file_below(self.images, key) for key in self._keys):
            raise InputError(
                f"{path}: the image {self._keys[0]!r} and all others are outside {self.images}: name the folder that "
                "holds them (--images), and write their paths from there or in full"
            )

    def captions(self, row: int) -> tuple[str, ...]:
        """At least one caption."""
        texts = self._captions[self._keys[row]]
        return self.checked(row, texts if isinstance(texts, NoCaption) else tuple(texts))

    def lines(self, row: int) -> list[ListedLine]:
        """The lines about an image where they have ids or tags of their own, else none."""
        return self._lines.get(self._keys[row], [])

    def checked(self, row: int, texts: tuple[str, ...] | NoCaption) -> tuple[str, ...]:
        """Captions or tags of an image, each once; raises `BadSample` where they cannot be used."""
        try:
            if isinstance(texts, NoCaption):
                raise texts
            return usable(dict.fromkeys(texts))
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self._keys[row], error.detail) from None

    def file(self, row: int) -> Path | None:
        """The image's file; None where its path leads out of `images`."""
        key = self._keys[row]
        path = self._path(key)
        if path is not None and ("\\" in key or not key.isascii()) and not os.path.exists(path):
            # Written on Windows, or by a file system that takes accents apart.
            plain = key.replace("\\", "/")
            others = (plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD")))
            return next((other for text in others if (other := self._path(text)) and os.path.exists(other)), path)
        return path

    def check_row(self, row: int) -> None:
        """Raises `BadSample` where a row cannot have an image: its line is none, or it names a web address."""
        key = self._keys[row]
        if self._is_broken(key):
            self.captions(row)
        if is_web_address(key):
            raise BadSample(MISSING_IMAGE, self.name, key, "a web address: fetch the images first, see docs/data.md")

    def _is_broken(self, key: str) -> bool:
        texts = self._captions[key]
        return isinstance(texts, NoCaption) and texts.reason == BROKEN_LINE

    def _path(self, key: str) -> Path | None:
        return self.images / key if self._own_list else file_below(self.images, key)

    def image_bytes(self, row: int) -> bytes:
        """The encoded image."""
        key = self._keys[row]
        self.check_row(row)
        image = self.file(row)
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
        raise InputError(f"{self.path} has no words for its captions: name a file or folder of words with --tags")

    def _add(self, image: str, texts: list[str] | NoCaption) -> None:
        known = self._captions.setdefault(image, texts)
        if known is texts or isinstance(texts, NoCaption):
            return
        if isinstance(known, NoCaption):
            self._captions[image] = texts
        else:
            known += texts


def looks_like_captions(path: Path) -> bool:
    """Whether a file of a folder begins like a list of images: a header or first object that names an image.

    Results of this package's own commands, which name images too, do not count, nor does a run's record.
    """
    if path.name.endswith("run.json"):
        return False
    if path.suffix.lower() == ".json":
        try:
            with path.open("rb") as file:
                beginning = file.read(1 << 16)
        except OSError:
            return False
        return b'"images"' in beginning or b'"annotations"' in beginning
    try:
        names = list_names(path)
    except (InputError, OSError):
        return False
    return not names.isdisjoint(IMAGE_NAMES) and not {"id", "image", "model"} <= names


_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # half characters that encode no byte of the file
_Found = tuple[str, "list[str] | NoCaption", ListedLine | None]


def _coco(path: Path) -> Iterator[_Found]:
    """`images` with id and file_name, `annotations` with image_id and caption: a text, or a list of texts."""
    advice = 'a COCO captions file has "images" and "annotations" with captions: convert it, or give CSV or JSONL'
    content = read_coco_json(path, ("images", "annotations"), advice)
    found: dict[Any, list[str]] = {}
    faults: dict[Any, NoCaption] = {}
    unlisted = left_out = 0
    try:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        if any(not isinstance(name, str) for name in names.values()):
            raise ValueError("a file_name is not a text")
        for annotation in content["annotations"]:
            number, texts = annotation["image_id"], texts_of(annotation["caption"])
            if number not in names:
                unlisted += 1
            elif texts is not None:
                found.setdefault(number, []).extend(texts)
            else:
                left_out += 1
                faults[number] = _no_text(annotation["caption"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}); {advice}") from None
    if unlisted:
        log.warning("%s: left out %d captions of images that the file does not list.", path, unlisted)
    if left_out:
        log.warning("%s: left out %d captions that are not text (null or numbers).", path, left_out)
    for number, name in names.items():
        yield _key(name), found.get(number) or faults.get(number) or NoCaption(MISSING_CAPTION), None


def _no_text(caption: Any) -> NoCaption:
    empty = caption is None or (isinstance(caption, float) and caption != caption)
    return NoCaption(MISSING_CAPTION) if empty else NoCaption(BROKEN_JSON, "a caption is not a text")


def _listed(path: Path) -> Iterator[_Found]:
    """One image per line; lines of one image add up."""
    # Read with surrogate escapes, so that a line in another encoding costs only its own image.
    for number, record in list_rows(path):
        if isinstance(record, Fault):
            yield f"line {number}", NoCaption(BROKEN_LINE, record.detail), None
            continue
        image = next((record[name] for name in IMAGE_NAMES if record.get(name)), None)
        if not isinstance(image, str):
            fields = ", ".join(list(record)[:10])
            detail = f"names no image: it has {fields or 'nothing'}, and needs one of {', '.join(IMAGE_NAMES)}"
            yield f"line {number}", NoCaption(BROKEN_LINE, detail), None
            continue
        try:
            texts: list[str] | NoCaption = list(from_record(record, TEXT_NAMES))
        except NoCaption as error:
            texts = error
        yield _key(image), texts, _line(record, texts)


def _line(record: dict[str, Any], texts: list[str] | NoCaption) -> ListedLine | None:
    """What only the commands that work line by line ask for; None where there is nothing of that."""
    name, tags = record.get("id"), record.get("tags")
    if name in (None, "") and not tags:
        return None
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
        name, texts = None, NoCaption(BROKEN_JSON, '"id" is neither a text nor a whole number')
    words = re.split("[;,]", tags) if isinstance(tags, str) else tags or []
    captions = texts if isinstance(texts, NoCaption) else tuple(texts)
    return ListedLine(None if name in (None, "") else str(name), captions, _words(words))


def _words(words: Any) -> tuple[str, ...] | NoCaption:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return NoCaption(BROKEN_JSON, '"tags" is not a list of texts')
    return tuple(word.strip() for word in words if word.strip())


def _key(image: str) -> str:
    """An image's path as Unicode, with replacement marks for what is none."""
    return _NO_BYTE.sub("\ufffd", image).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
