"""The pixels of a training sample: random size, random crop, padding that the losses leave out.

Every draw comes from (seed, epoch, item), so neither the number of workers nor a restart changes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ttd.training.config import Augment

# One stream of random numbers per purpose.
PIXELS, CAPTION, NEGATIVES = range(3)

Rect = tuple[int, int, int, int]  # top, left, bottom, right in pixels


@dataclass(frozen=True)
class Crop:
    """A square of pixels and where the image is in it.

    Attributes:
        pixels: uint8 `[S,S,3]`; 0 outside the image.
        rect: top, left, bottom, right of the image, in pixels.
    """

    pixels: NDArray[np.uint8]
    rect: Rect


def draws(seed: int, epoch: int, item: int, purpose: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch for one purpose."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, epoch, item]))


def random_crop(image: Image.Image, options: Augment, draw: np.random.Generator) -> Crop:
    """Resize the longer side at random, cut a random square; a smaller image is put at a random place in it."""
    longer = int(draw.integers(options.shortest, options.longest + 1))
    factor = longer / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    side = options.crop
    across, down, mirror = draw.random(3)
    left, top = int(across * (abs(width - side) + 1)), int(down * (abs(height - side) + 1))
    # Only the part that is kept is resized: the box is its place in the original.
    x, w = (left, side) if width > side else (0, width)
    y, h = (top, side) if height > side else (0, height)
    sx, sy = image.width / width, image.height / height
    box = (x * sx, y * sy, min((x + w) * sx, image.width), min((y + h) * sy, image.height))
    part = image.resize((w, h), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if mirror < options.flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x, y = (0 if width > side else left), (0 if height > side else top)
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[y : y + h, x : x + w] = np.asarray(part)
    return Crop(pixels, (y, x, y + h, x + w))


def normalised(
    pixels: Tensor, rects: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """uint8 `[B,S,S,3]` -> float32 `[B,3,S,S]`; outside the image 0, which is the mean colour.

    Args:
        pixels: from `Crop`.
        rects: int64 `[B,4]` from `Crop`.
        mean, std: statistics for values in 0..1.
    """
    shift = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    values = (pixels.permute(0, 3, 1, 2).float() / 255 - shift) / scale
    return values * inside_cells(rects, (pixels.shape[1], pixels.shape[2]), pixels.shape[1])[:, None]


def inside_cells(rects: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Which cells of a grid over the crop have their centre in the image: bool `[B,h,w]`.

    An image so small that it holds no centre keeps the cell that contains it.

    Args:
        rects: int64 `[B,4]` from `Crop`.
        grid: (h, w).
        side: of the crop, in pixels.
    """
    axes = []
    for cells, first, last in ((grid[0], rects[:, 0], rects[:, 2]), (grid[1], rects[:, 1], rects[:, 3])):
        numbers = torch.arange(cells, device=rects.device)
        centres = (numbers + 0.5) * (side / cells)
        within = (centres >= first[:, None]) & (centres < last[:, None])  # (B, cells)
        middle = ((first + last) / 2 * (cells / side)).long().clamp(0, cells - 1)
        axes.append(within | (~within.any(-1, keepdim=True) & (numbers == middle[:, None])))
    return axes[0][:, :, None] & axes[1][:, None, :]
