"""From maps on a small grid to what every pixel of the image gets: values, masks, labels.

Maps are enlarged bilinearly tile by tile, so an image of 178 megapixels never holds one value per class and
pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ttd.inference.resizing import tiles


def pixel_values(maps: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Maps `[N,h,w]` at the size (H, W): float32 `[N,H,W]`."""
    values = np.empty((len(maps), *size), dtype=np.float32)
    for rows, columns, tile in tiles(maps, size):
        values[:, rows, columns] = tile.cpu().numpy()
    return values


def pixel_mask(one_map: Tensor, size: tuple[int, int], threshold: float) -> NDArray[np.bool_]:
    """Where a map `[h,w]` reaches the threshold: bool `[H,W]`."""
    mask = np.empty(size, dtype=np.bool_)
    for rows, columns, tile in tiles(one_map[None], size):
        mask[rows, columns] = (tile[0] >= threshold).cpu().numpy()
    return mask


def pixel_labels(maps: Tensor, size: tuple[int, int], threshold: float | None) -> NDArray[np.uint16]:
    """The number of each pixel's highest map `[N,h,w]`: uint16 `[H,W]`; equal maps: the first.

    With a threshold 0 is background, where no map reaches it, and map n is number n + 1.
    """
    labels = np.empty(size, dtype=np.uint16)
    for rows, columns, tile in tiles(maps, size):
        highest, which = tile.max(0)
        if threshold is not None:
            which = (which + 1) * (highest >= threshold)
        labels[rows, columns] = which.cpu().numpy()
    return labels


def nearest(labels: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Enlarge or shrink a label map to (H, W); every pixel takes the cell its centre lies in."""
    rows, columns = (
        (np.arange(target) * 2 + 1) * cells // (2 * target) for target, cells in zip(size, labels.shape, strict=True)
    )
    enlarged: NDArray[np.uint16] = labels[rows[:, None], columns[None, :]]
    return enlarged
