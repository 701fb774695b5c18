"""Label maps and masks from files: whatever PNG a data set uses -> integers or bools [H,W]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ttd.errors import InputError, memory_for
from ttd.evaluation.metrics import IGNORED
from ttd.images import opened, turn_of

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


BY_COLOUR = "read by their colours, because their palette is VOC's in another order"
AS_STORED = "read as they are stored, because their palette is not VOC's"


@cache
def voc_palette() -> np.ndarray:
    """VOC's colours of the values 0..255, uint8 [256,3]: each bit of a value moves to the next channel's highest bit.

    Source: `VOClabelcolormap.m` of the VOC devkit.
    """
    values = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for step in range(8):
        for channel in range(3):
            palette[:, channel] |= ((values >> (3 * step + channel) & 1) << (7 - step)).astype(np.uint8)
    return palette


def read_voc_labels(path: Path, classes: int) -> tuple[np.ndarray, str | None]:
    """As `read_labels`, of files whose colours mean VOC's classes: programs that save space re-order palettes.

    Args:
        path: the file; one without a palette, in colours, is read by these too.
        classes: values 0 .. classes-1 and 255 are used.

    Returns:
        the values, and `BY_COLOUR` or `AS_STORED` where that had to be decided.

    Raises:
        InputError: as `read_labels`; a colour image has other colours.
    """
    image = _open(path)
    if image.mode != "P" and image.mode in _ONE_CHANNEL:
        return read_labels(path), None
    known = {tuple(voc_palette()[value].tolist()): value for value in (*range(classes), IGNORED)}
    if image.mode == "P":
        stored = np.asarray(image).astype(np.int64)
        used = np.unique(stored).tolist()
        palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
        colours = [tuple(palette[value].tolist()) if value < len(palette) else None for value in used]
        if any(colour not in known for colour in colours) or len(set(colours)) < len(colours):
            return stored, AS_STORED
        meant = [known[colour] for colour in colours if colour is not None]
        table = np.zeros(256, np.int64)
        table[used] = meant
        return table[stored], None if meant == used else BY_COLOUR
    pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ np.array([65536, 256, 1])
    numbers = {(r << 16) + (g << 8) + b: value for (r, g, b), value in known.items()}
    found, where = np.unique(pixels, return_inverse=True)
    if any(number not in numbers for number in found.tolist()):
        raise InputError(f"{path} is a colour image ({image.mode}), not in VOC's colours: labels must be numbers")
    return np.array([numbers[number] for number in found.tolist()])[where.reshape(pixels.shape)], BY_COLOUR


TURNED = "turned as their photos are shown, because they fit these only as they are stored (EXIF orientation)"
EITHER_WAY = "fit their photos both as these are stored and as they are shown (EXIF orientation)"
ORIENTATIONS = ("upright", "stored")


def oriented(
    labels: np.ndarray, path: Path, image: Path, shown: tuple[int, int], orientation: str = "upright"
) -> tuple[np.ndarray, str | None]:
    """Labels [H,W] as the photo is shown, though they were drawn on its pixels as they are stored.

    Args:
        labels: of any type.
        path: their file, for messages.
        image: the photo.
        shown: its height and width upright.
        orientation: of `ORIENTATIONS`: what labels are taken for that fit both ways.

    Returns:
        the labels, and `TURNED` or `EITHER_WAY` where the photo is not stored upright.

    Raises:
        InputError: they fit in no way.
    """
    with image.open("rb") as file, opened(file) as photo:
        stored = photo.size[::-1]
        turn = turn_of(photo, str(image))
    fits_shown, fits_stored = labels.shape == shown, turn is not None and labels.shape == stored
    if not fits_shown and not fits_stored:
        raise InputError(
            f"{path} is {labels.shape[1]}x{labels.shape[0]} pixels, the image {shown[1]}x{shown[0]}: they must have "
            "the same size"
        )
    if not fits_stored or turn is None:
        return labels, None
    how = EITHER_WAY if fits_shown else TURNED
    if fits_shown and orientation == "upright":
        return labels, how
    return np.asarray(_TURNS[turn](labels)), how


_TURNS: dict[Image.Transpose, Callable[[np.ndarray], np.ndarray]] = {
    Image.Transpose.FLIP_LEFT_RIGHT: np.fliplr,
    Image.Transpose.FLIP_TOP_BOTTOM: np.flipud,
    Image.Transpose.ROTATE_90: lambda values: np.rot90(values, 1),
    Image.Transpose.ROTATE_180: lambda values: np.rot90(values, 2),
    Image.Transpose.ROTATE_270: lambda values: np.rot90(values, 3),
    Image.Transpose.TRANSPOSE: np.transpose,
    Image.Transpose.TRANSVERSE: lambda values: np.rot90(values, 2).T,
}


def hold_ignored(paths: Sequence[Path], most: int = 50) -> bool:
    """Whether one of the label files, of at most `most` evenly over them, holds 255."""
    for path in paths[:: max(1, len(paths) // most)]:
        try:
            if (read_labels(path) == IGNORED).any():
                return True
        except InputError:
            continue
    return False


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
        with path.open("rb") as file:
            image = opened(file)
            image.load()
    except MemoryError as error:
        raise memory_for(path) from error
    # Decoders of damaged files raise anything: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged and cannot be decoded ({reason}): download it again") from error
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


def ade20k(classes: int) -> np.ndarray:
    """As `without_zero`, but without 255, which the original labels do not have: labels with it are reduced already."""
    table = without_zero(classes)
    table[IGNORED] = UNLISTED
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
    used = [value for value in range(_COCO_IDS) if value not in _COCO_GAPS]
    table[used] = np.arange(len(used))
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
