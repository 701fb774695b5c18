"""Uploaded images: reading them within limits, and their digest."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from PIL import Image

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
