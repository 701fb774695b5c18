"""The prompts of one word: points, boxes, and dabs of a brush, in pixels of the image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ttd.errors import InputError


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
    """

    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    dabs: tuple[Dab, ...] = ()
    empty: bool = False
    threshold: float | None = None

    def with_point(self, x: float, y: float, inside: bool) -> Prompts:
        """With one more point; a mask that had been cleared is proposed again."""
        return replace(self, points=(*self.points, Point(x, y, inside)), empty=False)

    def with_box(self, x: float, y: float, other_x: float, other_y: float) -> Prompts:
        """With one more box, between any two opposite corners."""
        box = Box(min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y))
        return replace(self, boxes=(*self.boxes, box), empty=False)

    def with_dab(self, x: float, y: float, radius: float, inside: bool) -> Prompts:
        """With one more dab of the brush."""
        return replace(self, dabs=(*self.dabs, Dab(x, y, radius, inside)))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON: points [x, y, 1/0], boxes [left, top, right, bottom], dabs [x, y, radius, 1/0]."""
        return {
            "points": [[p.x, p.y, int(p.inside)] for p in self.points],
            "boxes": [[b.left, b.top, b.right, b.bottom] for b in self.boxes],
            "dabs": [[d.x, d.y, d.radius, int(d.inside)] for d in self.dabs],
            "empty": self.empty,
            "threshold": self.threshold,
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
            )
        except (ArithmeticError, KeyError, TypeError, IndexError, ValueError):
            raise InputError("points, boxes or brush strokes are damaged or of another version") from None


def _numbers(values: Any, count: int) -> list[float]:
    numbers = [float(value) for value in values if not isinstance(value, (bool, str))]
    if len(numbers) != count or len(values) != count or not all(map(math.isfinite, numbers)):
        raise ValueError
    return numbers


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError
    return bool(value)
