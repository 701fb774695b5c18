"""Label maps and masks from files: whatever PNG a data set uses -> integers or bools [H,W]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ttd.errors import InputError, memory_for
from ttd.evaluation.metrics import IGNORED

_ONE_CHANNEL = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N"}


def read_labels(path: Path) -> np.ndarray:
    """The values of a one-channel label image as they are stored (palette indices, not colours): int64 [H,W].

    Raises:
        InputError: missing, damaged, or a colour image.
    """
    image = _open(path)
    if image.mode not in _ONE_CHANNEL:
        raise InputError(f"{path} is a colour image ({image.mode}): labels must be one number for each pixel")
    return np.asarray(image).astype(np.int64)


def read_mask(path: Path) -> np.ndarray:
    """Where a mask image is not black (JPEG: brighter than half): bool [H,W].

    Raises:
        InputError: missing or damaged.
    """
    image = _open(path)
    values = np.asarray(image if image.mode in _ONE_CHANNEL else image.convert("RGB"))
    mask = values > (127 if image.format == "JPEG" else 0)
    return np.asarray(mask.any(-1) if mask.ndim == 3 else mask)


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError(f"{path} does not exist: the truth for this image is missing")
    try:
        image = Image.open(path)
        image.load()
    except MemoryError as error:
        raise memory_for(path) from error
    # Decoders of damaged files raise anything: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged and cannot be decoded ({reason}): get it again") from error
    return image


LabelRule = Callable[[int], np.ndarray]
"""From the number of classes to a table of 256: stored value -> class, `IGNORED`, or `UNLISTED` (an error)."""

UNLISTED = -1
# Cityscapes' ids of the 19 classes that are evaluated, in the order of their train ids; others do not count.
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_IDS = 34
# COCO's ids (from 0) of categories that exist in name only.
_COCO_GAPS = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})
_COCO_IDS = 182


def identity(classes: int) -> np.ndarray:
    """Values 0 .. K-1 are the classes, 255 does not count."""
    table = _empty()
    table[:classes] = np.arange(classes)
    return table


def without_zero(classes: int) -> np.ndarray:
    """Value 0 (background or other) does not count, 1 .. K are the classes."""
    table = _empty()
    table[0] = IGNORED
    table[1 : classes + 1] = np.arange(classes)
    return table


def cityscapes_ids(classes: int) -> np.ndarray:
    """Cityscapes' original ids 0 .. 33; those that are not evaluated do not count."""
    table = _empty()
    table[:_CITYSCAPES_IDS] = IGNORED
    table[list(_CITYSCAPES)] = np.arange(len(_CITYSCAPES))
    return table


def coco_stuff_ids(classes: int) -> np.ndarray:
    """COCO-Stuff's original ids 0 .. 181 with the gaps of COCO's numbering taken out."""
    table = _empty()
    kept = [value for value in range(_COCO_IDS) if value not in _COCO_GAPS]
    table[kept] = np.arange(len(kept))
    return table


def apply_rule(values: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    """Class numbers [H,W] from stored values [H,W].

    Raises:
        InputError: a value that the data set does not have.
    """
    if values.size and (values.min() < 0 or values.max() >= len(table)):
        raise InputError(f"{path} holds values up to {values.max()}: labels of this data set are 0..{IGNORED}")
    labels = table[values]
    if (labels == UNLISTED).any():
        stray = int(values[labels == UNLISTED][0])
        raise InputError(f"{path} holds the label {stray}, which is outside the class list")
    return np.asarray(labels)


def _empty() -> np.ndarray:
    table = np.full(256, UNLISTED, np.int64)
    table[IGNORED] = IGNORED
    return table
