"""From maps on a small grid to what every pixel of the image gets: values, masks, labels.

Maps are enlarged bilinearly tile by tile, so an image of 178 megapixels never holds one value per class and
pixel. DenseCRF and SAM-HQ look at the image at no more than `WORKING_SIDE` pixels, and what they find is
enlarged.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ttd.inference.resizing import resize, tiles
from ttd.refine import SAMRefiner, crf

WORKING_SIDE = 1024


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


def crf_maps(image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
    """DenseCRF's marginals of maps `[N,h,w]` in 0..1, at the working size.

    Args:
        image: RGB.
        maps: compete with each other.
        background: the threshold that background stands for; None: there is none.

    Returns:
        `[1+N,H',W']` with the background first, or `[N,H',W']` without; the highest wins.
    """
    small = working_image(image)
    if background is None and len(maps) == 1:
        return torch.ones(1, small.height, small.width)
    values = resize(maps, (small.height, small.width)).clamp(0, 1).cpu().numpy()
    marginals = torch.from_numpy(crf(np.array(small), values, background=background))
    if background is None:
        return marginals
    return torch.cat([(1 - marginals.sum(0, keepdim=True)).clamp(min=0), marginals])


def sam_masks(refiner: SAMRefiner, image: Image.Image, maps: Tensor, threshold: float) -> NDArray[np.bool_]:
    """SAM-HQ's redrawing of each map `[N,h,w]` cut at the threshold: bool `[N,H',W']` that may overlap."""
    small = working_image(image)
    masks = pixel_values(maps, (small.height, small.width)) >= threshold
    return refiner.refine(small, masks, exclusive=False)[0]


def sam_labels(refiner: SAMRefiner, image: Image.Image, maps: Tensor, threshold: float | None) -> NDArray[np.uint16]:
    """`pixel_labels` redrawn by SAM-HQ, at the image's size.

    Pixels that nobody claims become background; without a background they keep their label.
    """
    small = working_image(image)
    labels = pixel_labels(maps, (small.height, small.width), threshold)
    first = 0 if threshold is None else 1
    numbers = np.arange(first, first + len(maps), dtype=np.uint16)
    redrawn, _ = refiner.refine(small, labels == numbers[:, None, None])
    fallback = labels if threshold is None else np.zeros_like(labels)
    best = np.where(redrawn.any(0), numbers[redrawn.argmax(0)], fallback)
    return nearest(best, (image.height, image.width))


def nearest(labels: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Enlarge or shrink a label map to (H, W); every pixel takes the cell its centre lies in."""
    rows, columns = (
        (np.arange(target) * 2 + 1) * cells // (2 * target) for target, cells in zip(size, labels.shape, strict=True)
    )
    enlarged: NDArray[np.uint16] = labels[rows[:, None], columns[None, :]]
    return enlarged


def working_image(image: Image.Image) -> Image.Image:
    """The image, with its longer side shrunk to at most `WORKING_SIDE` pixels."""
    factor = WORKING_SIDE / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
