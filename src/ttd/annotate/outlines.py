"""A mask as closed outlines whose corners a person can move, and back.

An outline is a tuple of corners (x, y) in pixels of the image, (0, 0) being the centre of the first pixel. A pixel
belongs to the mask where its centre lies within an odd number of outlines: a hole is an outline inside another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Outline = tuple[tuple[float, float], ...]
MOST_CORNERS = 600  # of one word: more nobody moves by hand
_FINE, _GROWTH = 0.75, 1.5  # pixels that an outline may lie beside the mask's edge at first, and how this grows


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
    # The mask lies to the right of every step: over its top edges to the right, down its right edges, and so on.
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
