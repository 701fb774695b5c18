"""What tars, captions files, tables and folders of images have in common: a numbered set of pairs on disk; how bytes or
JSON become the captions of a pair; and the simplest of these sets, a folder of images."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ttd.data.bad_samples import BROKEN_JSON, EMPTY_CAPTION, ENCODING, MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.listing import caption_file, list_images, plain_path
from ttd.data.remote import File, RemoteFile
from ttd.data.rows import decoded
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit

if TYPE_CHECKING:
    import pyarrow as pa


CAPTION_NAMES = ("captions", "caption", "text", "title")


class NoCaption(Exception):
    """The reason (one of `ttd.data.bad_samples.REASONS`) why a text gives no caption."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def from_text(data: bytes) -> tuple[str, ...]:
    """The one caption of a `.txt` file: all of it, blanks around it removed; UTF-8 or what its mark says."""
    return usable([_decoded(data)])


def from_json(data: bytes, names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """The captions of a `.json` member: the first of `names` that it has, a text or a list of texts."""
    try:
        record = parse_json(_decoded(data), nan=True)
    except Misfit as error:
        raise NoCaption(BROKEN_JSON, str(error)[:100]) from None
    if not isinstance(record, dict):
        raise NoCaption(BROKEN_JSON, "not an object")
    return from_record(record, names)


def from_record(record: dict[str, Any], names: Iterable[str] = CAPTION_NAMES) -> tuple[str, ...]:
    """As `from_json`, of a parsed record."""
    found = next((record[name] for name in names if record.get(name) is not None), None)
    if found is None:
        raise NoCaption(MISSING_CAPTION)
    texts = texts_of(found)
    if texts is None:
        raise NoCaption(BROKEN_JSON, "a caption is not a text")
    return usable(texts)


def texts_of(value: Any) -> list[str] | None:
    """A text, or a list of texts, as a list; None where it is anything else."""
    texts = value if isinstance(value, list) else [value]
    return texts if all(isinstance(text, str) for text in texts) else None


def _decoded(data: bytes) -> str:
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise NoCaption(ENCODING, f"byte {error.start} is not {error.encoding.upper()}") from None
    except UnicodeError as error:
        raise NoCaption(ENCODING, str(error)) from None


def usable(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts that are not blank, stripped."""
    kept = tuple(text.strip() for text in texts if text.strip())
    if not kept:
        raise NoCaption(EMPTY_CAPTION)
    if any("\0" in text for text in kept):
        raise NoCaption(ENCODING, "it holds NUL: UTF-16 that was read as UTF-8?")
    if any(0xD800 <= ord(char) <= 0xDFFF for text in kept for char in text):
        raise NoCaption(ENCODING, "half a surrogate pair")
    return kept


MOST_BYTES = 1 << 28  # of one image, so that a broken size cannot exhaust the memory


class Shard(Protocol):
    """A numbered set of pairs on disk.

    Attributes:
        name: folder and file name, the same wherever the folder is.
        size: bytes of the file.
        damage: what is wrong with the shard itself, None where nothing is.
    """

    name: str
    size: int
    damage: BadSample | None

    @property
    def path(self) -> File:
        """The file, here or elsewhere."""
        ...

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        ...

    def keys(self) -> pa.Array:
        """All keys, in order."""
        ...

    def key(self, row: int) -> str:
        """One key."""
        ...

    def captions(self, row: int) -> tuple[str, ...]:
        """At least one caption, or `BadSample`."""
        ...

    def file(self, row: int) -> Path | None:
        """The image's own file; None where it has none that may be read."""
        ...

    def image_bytes(self, row: int) -> bytes:
        """The encoded image, or `BadSample`."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """What else is known of the pair, by name; empty where that is nothing."""
        ...

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The words that the pair carries for each of its captions; `InputError` where it carries none."""
        ...


class PathKeys:
    """Keys that are the images' paths, held in memory."""

    _keys: list[str]

    def __len__(self) -> int:
        """Images."""
        return len(self._keys)

    def keys(self) -> pa.Array:
        """All images' paths, in order."""
        import pyarrow as pa

        return pa.array(self._keys, pa.string())

    def key(self, row: int) -> str:
        """An image's path."""
        return self._keys[row]


def shard_name(path: File) -> str:
    """The folder's name and the file's: what score files, keep-lists and reports call a shard."""
    if isinstance(path, RemoteFile):
        return path.shard_name
    path = plain_path(path)
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


log = logging.getLogger(__name__)


class ImageFolder(PathKeys):
    """See `ttd.data.shard.Shard`; a key is an image's path from the folder on, its subfolders included.

    What is left out of the listing is counted in the log.

    Args:
        path: the folder, or one image.
        without: see `ttd.data.listing.list_images`.

    Raises:
        InputError: the folder holds no image.
    """

    damage: BadSample | None = None

    def __init__(self, path: Path, without: Path | None = None) -> None:
        self.path = path
        self.name = shard_name(path)
        folder = path.parent
        self._files: tuple[Path, ...] = (path,)
        if path.is_dir():
            listing = list_images(path, without)
            folder, self._files = path, listing.files
            if not self._files:
                raise InputError(
                    f"{path} has no .tar shards, no captions file and no images: name the folder that holds them"
                )
            if listing.left_out:
                log.warning("%s: left out %s.", path, listing.left_out)
        # A name that is not UTF-8 reads with replacement marks; the file itself is opened by its own name.
        self._keys = [
            file.relative_to(folder).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            for file in self._files
        ]
        texts = dict.fromkeys(caption_file(file) for file in self._files)
        self.size = sum(file.stat().st_size for file in (*self._files, *texts) if os.path.isfile(file))

    def captions(self, row: int) -> tuple[str, ...]:
        """The text beside the image, all of it."""
        try:
            return from_text(self._read(caption_file(self._files[row]), row, MISSING_CAPTION))
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self._keys[row], error.detail) from None

    def file(self, row: int) -> Path:
        """The image's file."""
        return self._files[row]

    def image_bytes(self, row: int) -> bytes:
        """The encoded image."""
        return self._read(self._files[row], row, MISSING_IMAGE)

    def record(self, row: int) -> dict[str, Any]:
        """Nothing."""
        return {}

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """None are read from folders of images."""
        raise InputError(f"{self.path} has no words for its captions: name a file or folder of words with --tags")

    def _read(self, file: Path, row: int, reason: str) -> bytes:
        try:
            with file.open("rb") as opened:
                return opened.read(MOST_BYTES)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise BadSample(reason, self.name, self._keys[row], detail) from None
