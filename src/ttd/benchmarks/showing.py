"""What a page shows of one item: pictures, words coloured right, wrong or missed; and which items it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ttd.lettering import Colour

if TYPE_CHECKING:
    from PIL import Image

RIGHT, WRONG, MISSED, LEFT = "right", "wrong", "missed", ""
GAINED, LOST = "gained most", "lost most"


@dataclass(frozen=True)
class Panel:
    """One picture under its title; `legend`: what its colours mean, each a name and a colour."""

    title: str
    image: Image.Image
    legend: tuple[tuple[str, Colour], ...] = ()


@dataclass(frozen=True)
class MarkedWords:
    """What one tagger made of a caption.

    Attributes:
        title: the tagger's name.
        words: text and mark of every word, in order: `RIGHT` (selected and true), `WRONG` (selected, not true),
            `MISSED` (true, not selected), `LEFT` (rightly not selected).
    """

    title: str
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Shown:
    """One item: `given` is the same for every model (input, truth), `found` and `words` are this model's."""

    given: tuple[Panel, ...]
    found: tuple[Panel, ...] = ()
    words: tuple[MarkedWords, ...] = ()


def marked(title: str, words: Sequence[str], selected: Sequence[bool], true: Sequence[bool]) -> MarkedWords:
    """Marks of words from decisions and truth, all of the same length."""
    names = {(True, True): RIGHT, (True, False): WRONG, (False, True): MISSED, (False, False): LEFT}
    marks = [names[bool(kept), bool(right)] for kept, right in zip(selected, true, strict=True)]
    return MarkedWords(title, tuple(zip(words, marks, strict=True)))


def best_median_worst(values: Mapping[str, float], count: int) -> dict[str, list[str]]:
    """Ids of at most `count` items each, no item twice: "best" from the highest value down, "worst" from the lowest up,
    "median" around the middle rank.

    Fewer than 3 * `count` items are shared out evenly. Equal values are ordered by id; NaN is left out.
    """
    order = _ordered(values)
    each = min(count, max(1, len(order) // 3))
    best, rest = order[::-1][:each], order[: max(0, len(order) - each)]
    worst, rest = rest[:each], rest[each:]
    # The ranks nearest to the middle one of all, which lies inside what is left.
    middle = (len(order) - 1) / 2 - each
    nearest = sorted(range(len(rest)), key=lambda rank: (abs(rank - middle), rank))[:each]
    median = [rest[rank] for rank in sorted(nearest, reverse=True)]
    return {name: ids for name, ids in (("best", best), ("median", median), ("worst", worst)) if ids}


def most_changed(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, list[str]]:
    """Ids of at most `count` items each whose value rose or fell most; those without change are in neither."""
    change = {name: after[name] - value for name, value in before.items() if name in after}
    order = _ordered(change)
    gained = [name for name in order[::-1] if change[name] > 0][:count]
    lost = [name for name in order if change[name] < 0][:count]
    return {name: ids for name, ids in ((GAINED, gained), (LOST, lost)) if ids}


def _ordered(values: Mapping[str, float]) -> list[str]:
    """Ids from the lowest value to the highest; of equal ones the id that comes first is the higher."""
    kept = sorted((name for name in values if not math.isnan(values[name])), reverse=True)
    return sorted(kept, key=lambda name: values[name])
