"""A plain folder of images, or one image, each with its caption in NAME.txt beside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ttd.data.bad_samples import MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.captions import NoCaption, from_text
from ttd.data.listing import caption_file, list_images
from ttd.data.shard import MOST_BYTES, PathKeys, shard_name
from ttd.errors import InputError

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
        raise InputError(f"{self.path} carries no words for its captions: name a file or folder of words with --tags")

    def _read(self, file: Path, row: int, reason: str) -> bytes:
        try:
            with file.open("rb") as opened:
                return opened.read(MOST_BYTES)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or str(error)
            raise BadSample(reason, self.name, self._keys[row], detail) from None
