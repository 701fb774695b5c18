"""Label maps and masks from files: whatever PNG a data set uses -> integers or bools [H,W]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ttd.errors import InputError, OutOfMemory

_ONE_CHANNEL = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"}


def read_labels(path: Path) -> np.ndarray:
    """The values of a one-channel label picture as they are stored (palette indices, not colours): int64 [H,W].

    Raises:
        InputError: missing, damaged, or a colour picture.
    """
    image = _open(path)
    if image.mode not in _ONE_CHANNEL:
        raise InputError(f"{path} is a colour picture ({image.mode}): labels must be one number for each pixel")
    return np.asarray(image).astype(np.int64)


def read_mask(path: Path) -> np.ndarray:
    """Where a mask picture is not black (JPEG: brighter than half): bool [H,W].

    Raises:
        InputError: missing or damaged.
    """
    image = _open(path)
    values = np.asarray(image if image.mode in _ONE_CHANNEL else image.convert("RGB"))
    mask = values > (127 if image.format == "JPEG" else 0)
    return np.asarray(mask.any(-1) if mask.ndim == 3 else mask)


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError(f"{path} does not exist: the truth for this picture is missing")
    try:
        image = Image.open(path)
        image.load()
    except MemoryError as error:
        raise OutOfMemory(f"{path} does not fit into memory: make the picture smaller first") from error
    # Decoders of damaged files raise anything: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged and cannot be decoded ({reason}): get it again") from error
    return image
