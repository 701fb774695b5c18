"""Panels of a page of images: classes with their names on them, a mask with what is right, wrong and missed.

Colours are Okabe and Ito's; none of them speaks alone: classes carry their names, outcomes a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ttd.viz.overlays import bounded, class_colours, heatmap_overlay, label_overlay, labels_on_grid
from ttd.viz.typography import INK, PAPER, Colour, fitted, font

if TYPE_CHECKING:
    from PIL import Image

RIGHT, WRONG, MISSED, LEFT = "right", "wrong", "missed", ""
GAINED, LOST = "gained most", "lost most"


@dataclass(frozen=True)
class Panel:
    """One image under its title; `legend`: what its colours mean, each a name and a colour."""

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
class ItemPanels:
    """One item: `given` is the same for every model (input, truth), `found` and `words` are this model's."""

    given: tuple[Panel, ...]
    found: tuple[Panel, ...] = ()
    words: tuple[MarkedWords, ...] = ()


def marked(title: str, words: Sequence[str], selected: Sequence[bool], true: Sequence[bool]) -> MarkedWords:
    """Marks of words from decisions and truth, all of the same length."""
    names = {(True, True): RIGHT, (True, False): WRONG, (False, True): MISSED, (False, False): LEFT}
    marks = [names[bool(chosen), bool(right)] for chosen, right in zip(selected, true, strict=True)]
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
    known = sorted((name for name in values if not math.isnan(values[name])), reverse=True)
    return sorted(known, key=lambda name: values[name])


SIDE = 360  # pixels of a panel's longer side
LEAST_NAMED = 0.02  # share of the image from which on a class carries its name
MOST_IN_LEGEND = 8
BLUE: Colour = (0, 114, 178)
ORANGE: Colour = (230, 159, 0)
PINK: Colour = (204, 121, 167)


def photo_panel(title: str, photo: Image.Image) -> Panel:
    """The image itself."""
    return Panel(title, bounded(photo, SIDE, enlarge=True))


def heat_panel(title: str, photo: Image.Image, heat: NDArray[np.float32]) -> Panel:
    """A map [H,W] in 0..1 over the greyed photo."""
    return Panel(title, heatmap_overlay(photo, heat, side=SIDE, enlarge=True))


def class_panel(
    title: str, photo: Image.Image, labels: NDArray[np.int64], titles: Sequence[str], *, background: bool
) -> Panel:
    """Classes as colours with their names on them.

    `labels` [H,W] index `titles`; `len(titles)` (nothing is said) stays the photo, what is higher (not counted) is
    hatched. With `background`, class 0 stays the photo as well.
    """
    count = len(titles)
    # Without a background class the classes move up by one, so that 0 is free for "nothing is said".
    shift = 0 if background else 1
    names = list(titles) if background else ["", *titles]
    drawn = np.where(labels >= count, 0, labels + shift)
    image = label_overlay(photo, drawn, names, background=True, legend=0, side=SIDE, enlarge=True)
    pixels = np.array(image)
    uncounted = labels_on_grid((labels > count).astype(np.uint8), image.size).astype(bool)
    pixels[uncounted & _stripes(image.size)] = PAPER
    image = Image.fromarray(pixels)
    share = np.bincount(drawn.ravel(), minlength=len(names)) / max(drawn.size, 1)
    order = [int(k) for k in np.argsort(-share, kind="stable") if share[k] > 0 and k > 0]
    small = labels_on_grid(drawn, image.size)
    _write_names(image, small, [(k, names[k]) for k in order if share[k] >= LEAST_NAMED])
    colours = class_colours(len(names) - 1)
    legend = [(names[k], _colour(colours[k - 1])) for k in order[:MOST_IN_LEGEND]]
    return Panel(title, image, tuple(legend))


def outcome_panel(title: str, photo: Image.Image, found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Panel:
    """A mask [H,W] against the true one: right is blue, wrong orange with stripes, missed pink with crossed stripes."""
    small = bounded(photo, SIDE, enlarge=True)
    kinds = found.astype(np.uint8) + 2 * truth.astype(np.uint8)
    kind = labels_on_grid(kinds, small.size)
    grey = np.asarray(small.convert("L").convert("RGB"), np.float32)
    pixels = grey * 0.6
    down, up = _stripes(small.size), _stripes(small.size, up=True)
    plain = np.zeros_like(down)
    for number, colour, lines in ((3, BLUE, plain), (1, ORANGE, down), (2, PINK, down | up)):
        here = kind == number
        pixels[here] = 0.4 * grey[here] + 0.6 * np.array(colour, np.float32)
        pixels[here & lines] = 255
    return Panel(title, Image.fromarray(pixels.round().astype(np.uint8)))


def _stripes(size: tuple[int, int], *, up: bool = False) -> NDArray[np.bool_]:
    """[H,W]: diagonal lines, two pixels wide in every ten."""
    rows, columns = np.ogrid[: size[1], : size[0]]
    return np.asarray((rows + columns if up else rows - columns) % 10 < 2)


def _write_names(image: Image.Image, labels: NDArray[np.int64], names: Sequence[tuple[int, str]]) -> None:
    """Each class's name where its region is thickest."""
    from scipy.ndimage import distance_transform_cdt

    draw, face = ImageDraw.Draw(image), font(15, True)
    for number, name in names:
        # Framed, so that the image's border counts as an edge and the name stays inside.
        depth = distance_transform_cdt(np.pad(labels == number, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        text = fitted(name, face, image.width)
        half = face.getlength(text) / 2 + 2
        left = min(max(float(x), half), max(image.width - half, half))
        draw.text((left, float(y)), text, font=face, fill=INK, anchor="mm", stroke_width=2, stroke_fill=PAPER)


def _colour(values: NDArray[np.uint8]) -> Colour:
    return int(values[0]), int(values[1]), int(values[2])
