"""A plain folder of images, each with its caption in NAME.txt beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ttd.data.bad_samples import MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.captions import NoCaption, from_text
from ttd.data.listing import caption_file, images_in
from ttd.data.tar_shard import MOST_BYTES, shard_name
from ttd.errors import InputError


class ImageFolder:
    """See `ttd.data.tar_shard.Shard`; a key is an image's path from the folder on, its subfolders included.

    Args:
        path: the folder.
    """

    damage: BadSample | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = shard_name(path)
        self._files = images_in(path)
        # A name that is no UTF-8 reads with replacement marks; the file itself is opened by its own name.
        self._keys = [
            file.relative_to(path).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            for file in self._files
        ]
        texts = dict.fromkeys(caption_file(file) for file in self._files)
        self.size = sum(file.stat().st_size for file in (*self._files, *texts) if file.is_file())

    def __len__(self) -> int:
        """Images."""
        return len(self._keys)

    def keys(self) -> pa.Array:
        """All images' paths, sorted."""
        return pa.array(self._keys, pa.string())

    def key(self, row: int) -> str:
        """An image's path."""
        return self._keys[row]

    def captions(self, row: int) -> tuple[str, ...]:
        """The text beside the image, all of it."""
        try:
            return from_text(self._read(caption_file(self._files[row]), row, MISSING_CAPTION))
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self._keys[row], error.detail) from None

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
        except OSError as error:
            raise BadSample(reason, self.name, self._keys[row], error.strerror or str(error)) from None
