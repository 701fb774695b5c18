"""Uploaded images: read within limits, and kept in a folder where nothing stays of refused ones."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio
from PIL import Image

from ttd.app.asgi import App, Receive, Scope, Send, replayed
from ttd.errors import InputError, TTDError
from ttd.images import read_image

MAX_BYTES = 25 * 1024 * 1024
MAX_PIXELS = 50_000_000


def digest(path: str) -> str:
    """SHA-256 of the file, the same for an image that is uploaded twice.

    Raises:
        InputError: the file was deleted, or is larger than `MAX_BYTES`.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file.name} is larger than {MAX_BYTES >> 20} MB: save it smaller, e.g. as JPEG")
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file.name} is no longer on the server: upload the image again") from error


def read_upload(path: str, side: int | None = None) -> Image.Image:
    """The image, upright RGB; with `side` its longer side is at most so many pixels.

    Raises:
        InputError: the file is not an image, damaged, or above `MAX_PIXELS` (checked before it is decoded).
    """
    _check_pixels(Path(path))
    try:
        return read_image(path, side=side)
    except TTDError as error:
        # The folder on the server is not shown to the visitor.
        raise type(error)(str(error).replace(path, Path(path).name)) from error


def _check_pixels(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                pixels = image.width * image.height
        # `read_image` describes what is wrong with the file.
        except Exception:
            return
    if pixels > MAX_PIXELS:
        raise InputError(
            f"{path.name} has {pixels / 1e6:.0f} megapixels, this page takes {MAX_PIXELS // 1_000_000}: "
            "make it smaller first, or use the command line"
        )


MAX_STORED = 500 << 20  # bytes of all accepted uploads
MAX_AT_ONCE = 8  # uploads that are being sent
MAX_SECONDS = 300.0  # for one upload
_CHUNK = 1 << 20
_SPOOL = "upload-"


class UploadRefused(Exception):
    """An upload is not taken: status and sentence for the visitor."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class UploadFolder:
    """Takes uploads whole before gradio sees them, and keeps its folder within bounds.

    Gradio writes every file of an upload to `FOLDER/tmp...` while it comes in, moves the good ones to
    `FOLDER/DIGEST/NAME` and leaves the rest where it is.

    Args:
        folder: gradio's; files that are in it now are never removed.
        limit: bytes of all accepted uploads and of gradio's copies of them.
        seconds: in which an upload must arrive.
        files: how many of them are kept.
    """

    def __init__(self, folder: Path, limit: int = MAX_STORED, seconds: float = MAX_SECONDS, files: int = 2000) -> None:
        self.folder = folder
        self._limit, self._seconds, self._most = limit, seconds, files
        self._own = set(folder.rglob("*"))
        self._passing = asyncio.Lock()
        self._running = 0

    async def take(self, app: App, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Reads an upload of at most `most` bytes and passes it on to `app`.

        Raises:
            UploadRefused: it is too large, too slow, incomplete, or too many others are running.
        """
        if self._running >= MAX_AT_ONCE:
            raise UploadRefused(503, "Too many images are being sent to this page: try again in a minute.")
        self._running += 1
        try:
            with tempfile.TemporaryFile(dir=self.folder, prefix=_SPOOL) as spool:
                with anyio.move_on_after(self._seconds) as timer:
                    size = await _read(receive, spool, most)
                if timer.cancelled_caught:
                    raise UploadRefused(408, f"The image did not arrive within {self._seconds:.0f} s: send it again.")
                # One at a time, so that what is left over belongs to no other upload.
                async with self._passing:
                    self.sweep(size)
                    try:
                        await app(scope, replayed(_chunks(spool), receive), send)
                    finally:
                        self._sweep_leftovers()
        finally:
            self._running -= 1

    def sweep(self, room: int = 0) -> None:
        """Removes the oldest uploads until `room` more bytes fit, and empty folders."""
        files = sorted(self._uploads(), key=lambda one: one[0])
        stored = sum(size for _, size, _ in files)
        number = len(files)
        for _, size, path in files:
            if stored + room <= self._limit and number < self._most:
                break
            with suppress(OSError):
                path.unlink()
            stored, number = stored - size, number - 1
        for path in self.folder.iterdir():
            # An `rmdir` that fails: there are files in it.
            if path not in self._own and path.is_dir():
                with suppress(OSError):
                    path.rmdir()

    def _uploads(self) -> Iterator[tuple[int, int, Path]]:
        """Time, size and path of every file in gradio's folders that was not there at the start."""
        for path in self.folder.glob("*/*"):
            with suppress(OSError):
                if path not in self._own and not path.is_symlink() and path.is_file():
                    found = path.stat()
                    yield found.st_ctime_ns, found.st_size, path

    def _sweep_leftovers(self) -> None:
        for path in self.folder.iterdir():
            if path not in self._own and not path.name.startswith(_SPOOL):
                with suppress(OSError):
                    if path.is_file():
                        path.unlink()


async def _read(receive: Receive, spool: IO[bytes], most: int) -> int:
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise UploadRefused(400, "The upload ended before its end: send it again.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise UploadRefused(413, f"This is more than {most >> 20} MB, the most that this page takes.")
        await anyio.to_thread.run_sync(spool.write, chunk)
        if not message.get("more_body"):
            spool.seek(0)
            return size


def _chunks(spool: IO[bytes]) -> Iterator[bytes]:
    while chunk := spool.read(_CHUNK):
        yield chunk
