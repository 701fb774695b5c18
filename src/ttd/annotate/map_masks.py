"""Masks from the model's own map and a person's points and boxes: what is proposed without SAM-HQ.

The rule: a pixel belongs to the mask where the map reaches the threshold.
- Without points and boxes: all these pixels.
- Boxes: only pixels inside a box. In a box where no pixel reaches the threshold, the threshold is half-way between the
  box's lowest and highest value.
- Points inside: of those pixels, the connected parts that hold a point (corners connect). Where the map at a point is
  below the threshold, the value there is the threshold of its part. The part of a point in no box may lie anywhere.
- Points outside: remove the pixels that are nearer to them than to any point inside; without a point inside, remove the
  connected parts that hold them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttd.annotate.prompts import Box, Dab, Point, Prompts

Mask = NDArray[np.bool_]


def mask_from_map(heat: NDArray[np.float32], prompts: Prompts, threshold: float) -> Mask:
    """The mask bool [H,W] by the rule of this module; the dabs are painted by `painted`.

    Args:
        heat: the map, [H,W] in 0..1.
        prompts: coordinates are rounded to pixels and clamped to the image.
        threshold: in 0..1; `prompts.threshold`, where there is one, takes precedence.
    """
    threshold = threshold if prompts.threshold is None else prompts.threshold
    boxed, levels = _in_boxes(heat, prompts.boxes, threshold)
    inside = [_pixel(p, heat.shape) for p in prompts.points if p.inside]
    outside = [_pixel(p, heat.shape) for p in prompts.points if not p.inside]
    mask = boxed & (heat >= levels)
    if inside:
        mask = np.any([_part_at(heat, boxed, levels, threshold, spot) for spot in inside], axis=0)
    if outside and inside:
        mask = mask & ~_nearer(heat.shape, outside, inside)
    elif outside:
        mask = mask & ~_parts_under(mask, outside)
    return mask


def painted(mask: Mask, dabs: Sequence[Dab]) -> Mask:
    """The mask bool [H,W] with the dabs of a brush painted over it, later ones over earlier ones."""
    if not dabs:
        return mask
    out = mask.copy()
    height, width = mask.shape
    for dab in dabs:
        # Only the square around the disc, which is fast for images of many megapixels, too.
        top, bottom = max(0, int(dab.y - dab.radius)), min(height, int(dab.y + dab.radius) + 2)
        left, right = max(0, int(dab.x - dab.radius)), min(width, int(dab.x + dab.radius) + 2)
        rows, columns = np.ogrid[top:bottom, left:right]
        disc = (rows - dab.y) ** 2 + (columns - dab.x) ** 2 <= max(dab.radius, 0.5) ** 2
        out[top:bottom, left:right][disc] = dab.inside
    return out


def _in_boxes(heat: NDArray[np.float32], boxes: Sequence[Box], threshold: float) -> tuple[Mask, NDArray[np.float32]]:
    """The pixels [H,W] inside of boxes, and the threshold at each of them (the lowest where boxes overlap)."""
    if not boxes:
        return np.ones(heat.shape, np.bool_), np.full(heat.shape, threshold, np.float32)
    allowed, levels = np.zeros(heat.shape, np.bool_), np.full(heat.shape, np.inf, np.float32)
    for box in boxes:
        top, left = _pixel(Point(box.left, box.top), heat.shape)
        bottom, right = _pixel(Point(box.right, box.bottom), heat.shape)
        where = np.s_[top : bottom + 1, left : right + 1]
        low, high = float(heat[where].min()), float(heat[where].max())
        level = threshold if high >= threshold else (low + high) / 2
        allowed[where] = True
        levels[where] = np.minimum(levels[where], level)
    return allowed, levels


def _part_at(
    heat: NDArray[np.float32], boxed: Mask, levels: NDArray[np.float32], threshold: float, spot: tuple[int, int]
) -> Mask:
    """The connected part in which a pixel lies, at the threshold there or at the pixel's own value."""
    value = heat[spot]
    if boxed[spot]:
        candidates = boxed & (heat >= np.minimum(levels, value))
    else:
        candidates = heat >= np.minimum(np.float32(threshold), value)
    return _parts_under(candidates, [spot])


def _parts_under(mask: Mask, spots: Sequence[tuple[int, int]]) -> Mask:
    """The connected parts of a mask (corners connect) that hold one of the pixels."""
    from scipy import ndimage

    numbers, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    hit = [number for number in {int(numbers[spot]) for spot in spots} if number]
    return np.asarray(np.isin(numbers, hit))


def _nearer(shape: tuple[int, ...], these: Sequence[tuple[int, int]], than: Sequence[tuple[int, int]]) -> Mask:
    """Pixels [H,W] that are nearer to one of `these` than to any of `than`."""

    def squared(spots: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        nearest = np.full(shape, np.inf)
        for row, column in spots:
            np.minimum(nearest, (rows - row) ** 2.0 + (columns - column) ** 2.0, out=nearest)
        return nearest

    return np.asarray(squared(these) < squared(than))


def _pixel(point: Point, shape: tuple[int, ...]) -> tuple[int, int]:
    """Row and column of the pixel at a point, clamped to the image."""
    row, column = int(np.floor(point.y + 0.5)), int(np.floor(point.x + 0.5))
    return min(max(row, 0), shape[0] - 1), min(max(column, 0), shape[1] - 1)
