"""The prompts of a word (points, boxes, dabs of a brush, in pixels of the image), the mask that its map gives, and a
mask as closed outlines whose corners a person can move.

The rule without SAM-HQ: a pixel belongs to the mask where the map reaches the threshold.
- Without points and boxes: all these pixels.
- Boxes: only pixels inside a box. In a box where no pixel reaches the threshold, the threshold is half-way between the
  box's lowest and highest value.
- Points inside: of those pixels, the connected parts that hold a point (corners connect). Where the map at a point is
  below the threshold, the value there is the threshold of its part. The part of a point in no box may be anywhere.
- Points outside: remove the pixels that are nearer to them than to any point inside; without a point inside, remove the
  connected parts that hold them.

An outline is a tuple of corners (x, y), (0, 0) being the centre of the first pixel. A pixel belongs to the mask where
its centre is within an odd number of outlines: a hole is an outline inside another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttd.errors import InputError

Outline = tuple[tuple[float, float], ...]
MOST_CORNERS = 600  # of one word: more cannot be edited by hand
_FINE, _GROWTH = 0.75, 1.5  # pixels that an outline may be off the mask's edge at first, and how this grows


def traced(mask: NDArray[np.bool_], most: int = MOST_CORNERS) -> tuple[Outline, ...]:
    """The outlines of a mask bool [H,W] with at most `most` corners in all.

    They stay within 0.75 pixels of the mask's edge where that needs no more corners than `most`; else the bound grows,
    and specks narrower than it are left out.
    """
    exact = [np.asarray(ring, np.float64) for ring in _rings(mask)]
    bound = _FINE
    found = [_simplified(ring, bound) for ring in exact]
    while sum(map(len, found)) > most:
        bound *= _GROWTH
        exact = [ring for ring in exact if np.ptp(ring, axis=0).min() >= bound]
        found = [_simplified(ring, bound) for ring in exact]
    return tuple(tuple((float(x), float(y)) for x, y in ring) for ring in found)


def filled(outlines: Sequence[Outline], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool [H,W] of outlines. Every row is crossed from the left: each edge turns inside into outside."""
    height, width = size
    crossed = np.zeros((height, width + 1), np.int32)
    for outline in outlines:
        for (x, y), (next_x, next_y) in zip(outline, (*outline[1:], *outline[:1]), strict=True):
            first, last = np.clip(np.ceil(sorted((y, next_y))), 0, height).astype(int)
            rows = np.arange(first, last)
            if len(rows):
                across = x + (rows - y) * (next_x - x) / (next_y - y)
                np.add.at(crossed, (rows, np.clip(np.ceil(across), 0, width).astype(int)), 1)
    return np.asarray(crossed.cumsum(axis=1)[:, :width] % 2 == 1)


def _rings(mask: NDArray[np.bool_]) -> list[list[tuple[float, float]]]:
    """The edges between pixels inside and outside as closed lines, their corners only."""
    inside = np.pad(mask, 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # The mask is to the right of every step: over its top edges to the right, down its right edges, and so on.
    for (down, right), start, step in (
        ((-1, 0), (0, 0), (0, 1)),
        ((0, 1), (0, 1), (1, 0)),
        ((1, 0), (1, 1), (0, -1)),
        ((0, -1), (1, 0), (-1, 0)),
    ):
        edge = inside & ~np.roll(inside, (-down, -right), (0, 1))
        for row, column in np.argwhere(edge).tolist():
            corner = row + start[0], column + start[1]
            after.setdefault(corner, []).append((corner[0] + step[0], corner[1] + step[1]))
    rings = []
    while after:
        start_at = at = next(iter(after))
        ring: list[tuple[int, int]] = []
        while not ring or at != start_at:
            ring.append(at)
            ends = after[at]
            following = ends.pop()
            if not ends:
                del after[at]
            at = following
        turns = [
            here
            for before, here, then in zip((ring[-1], *ring[:-1]), ring, (*ring[1:], ring[0]), strict=True)
            if (here[0] - before[0], here[1] - before[1]) != (then[0] - here[0], then[1] - here[1])
        ]
        # Corner (1, 1) of the padded mask is the outer corner of the image's first pixel.
        rings.append([(column - 1.5, row - 1.5) for row, column in turns])
    return rings


def _simplified(ring: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """The ring [N,2] without corners within `bound` pixels of what is left (Douglas and Peucker); three stay."""
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.vstack([ring, ring[:1]])
    keep, waiting = {0, far}, [(0, far), (far, len(ring))]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:
            continue
        start, along = closed[first], closed[last] - closed[first]
        between = closed[first + 1 : last] - start
        share = np.clip(between @ along / max(along @ along, 1e-12), 0, 1)
        away = np.hypot(*(between - share[:, None] * along).T)
        worst = int(away.argmax())
        if away[worst] > bound:
            middle = first + 1 + worst
            keep.add(middle)
            waiting += [(first, middle), (middle, last)]
    return ring[sorted(keep)] if len(keep) > 2 else ring


@dataclass(frozen=True)
class Point:
    """A pixel that belongs to the word (`inside`) or does not; (x, y) from the top-left pixel's centre."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True)
class Box:
    """Around (part of) what the word names; left <= right, top <= bottom, edges included."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Dab:
    """A disc painted over the proposed mask: added (`inside`) or removed."""

    x: float
    y: float
    radius: float
    inside: bool = True


@dataclass(frozen=True)
class Prompts:
    """All prompts of one word, in order.

    Attributes:
        points, boxes: ask for another proposal.
        dabs: correct the proposal, the later ones over the earlier.
        empty: the proposal is empty, whatever the map shows.
        threshold: of the word's map, 0..1; None: the model's own.
        outlines: drawn by hand in place of the proposal, see `outlines`; None: none are.
    """

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    dabs: tuple[Dab, ...] = ()
    empty: bool = False
    threshold: float | None = None
    outlines: tuple[Outline, ...] | None = None

    def with_point(self, x: float, y: float, inside: bool) -> Prompts:
        """With one more point; a mask that had been cleared or outlined is proposed again."""
        return replace(self, points=(*self.points, Point(x, y, inside)), empty=False, outlines=None)

    def with_box(self, x: float, y: float, other_x: float, other_y: float) -> Prompts:
        """With one more box, between any two opposite corners."""
        box = Box(min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))
        return replace(self, boxes=(*self.boxes, box), empty=False, outlines=None)

    def with_dab(self, x: float, y: float, radius: float, inside: bool) -> Prompts:
        """With one more dab of the brush."""
        return replace(self, dabs=(*self.dabs, Dab(x, y, radius, inside)))

    def with_outlines(self, outlines: tuple[Outline, ...]) -> Prompts:
        """With outlines in place of the proposal and of what was painted over it."""
        return replace(self, outlines=outlines, dabs=(), empty=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON: points [x, y, 1/0], boxes [left, top, right, bottom], dabs [x, y, radius, 1/0]; of each
        outline its corners [x, y]."""
        return {
            "points": [[p.x, p.y, int(p.inside)] for p in self.points],
            "boxes": [[b.left, b.top, b.right, b.bottom] for b in self.boxes],
            "dabs": [[d.x, d.y, d.radius, int(d.inside)] for d in self.dabs],
            "empty": self.empty,
            "threshold": self.threshold,
            "outlines": self.outlines,
        }

    @classmethod
    def from_dict(cls, content: Any) -> Prompts:
        """The reverse of `to_dict`; raises `InputError` for anything else."""
        try:
            points = [(_numbers(row[:2], 2), _flag(row[2])) for row in content["points"]]
            dabs = [(_numbers(row[:3], 3), _flag(row[3])) for row in content["dabs"]]
            threshold = content["threshold"]
            return cls(
                tuple(Point(x, y, inside) for (x, y), inside in points),
                tuple(Box(*_numbers(row, 4)) for row in content["boxes"]),
                tuple(Dab(x, y, radius, inside) for (x, y, radius), inside in dabs),
                _flag(content["empty"]),
                None if threshold is None else _numbers([threshold], 1)[0],
                checked_outlines(content.get("outlines")),  # records of an earlier version have none
            )
        except (ArithmeticError, KeyError, TypeError, IndexError, ValueError):
            raise InputError("points, boxes or brush strokes are damaged or of another version") from None


def checked_outlines(content: Any) -> tuple[Outline, ...] | None:
    """Outlines from lists of corners [x, y], None for None; raises `ValueError` or `TypeError` for anything else."""
    if content is None:
        return None
    found = tuple(tuple((x, y) for x, y in (_numbers(corner, 2) for corner in outline)) for outline in content)
    if sum(map(len, found)) > 2 * MOST_CORNERS or any(len(outline) < 3 for outline in found):
        raise ValueError
    return found


def _numbers(values: Any, count: int) -> list[float]:
    numbers = [float(value) for value in values if not isinstance(value, (bool, str))]
    if len(numbers) != count or len(values) != count or not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)


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
    """The connected part that contains a pixel, at the threshold there or at the pixel's own value."""
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
