"""The histogram of scores with the cut: one panel per data set."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ttd.data.pruning import BINS, Pruned, Spread
from ttd.lettering import FAINT, INK, PAPER, cut, font

_WIDTH, _HEIGHT, _EDGE, _TOP, _FOOT = 800, 260, 30, 40, 30
_BARS = 200
_KEPT, _LEFT, _LINE = (38, 106, 204), (190, 196, 204), (200, 40, 40)


def score_histogram(pruned: Pruned) -> Image.Image:
    """How often each score occurs, kept ones blue, and the cut as a red line; 800 pixels wide."""
    page = Image.new("RGB", (_WIDTH, _HEIGHT * len(pruned.spreads)), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (name, spread) in enumerate(pruned.spreads.items()):
        _panel(draw, number * _HEIGHT, name, spread, pruned)
    return page


def _panel(draw: ImageDraw.ImageDraw, top: int, name: str, spread: Spread, pruned: Pruned) -> None:
    threshold = spread.cut(pruned.k)
    title = (
        f"{name}: {spread.count:,} pairs, mean {spread.mean:.4f}, deviation {spread.deviation:.4f}; "
        f"{pruned.kept[name]:,} ({pruned.kept[name] / spread.count:.1%}) above {threshold:.4f} kept"
    )
    face = font(14, True)
    draw.text((_EDGE, top + 10), cut(title, face, _WIDTH - 2 * _EDGE), font=face, fill=INK)
    low, high = _range(spread, threshold)
    bars = _resampled(spread, low, high)
    base, tallest = top + _HEIGHT - _FOOT, max(1.0, float(bars.max()))
    width = (_WIDTH - 2 * _EDGE) / _BARS
    for i, count in enumerate(bars):
        middle = low + (high - low) * (i + 0.5) / _BARS
        left = _EDGE + i * width
        height = (base - top - _TOP) * float(count) / tallest
        if height > 0:
            colour = _KEPT if middle > threshold else _LEFT
            draw.rectangle((left, base - height, left + width, base), fill=colour)
    draw.line((_EDGE, base, _WIDTH - _EDGE, base), fill=INK)
    at = _EDGE + (_WIDTH - 2 * _EDGE) * (threshold - low) / (high - low)
    draw.line((at, top + _TOP - 6, at, base), fill=_LINE, width=2)
    for place, score in ((_EDGE, low), (at, threshold), (_WIDTH - _EDGE, high)):
        draw.text((place, base + 6), f"{score:.3f}", font=font(12), fill=FAINT, anchor="ma")


def _range(spread: Spread, threshold: float) -> tuple[float, float]:
    """The scores that occur, and the cut, with a little room."""
    used = np.flatnonzero(spread.bins)
    low, high = used[0] * 2 / BINS - 1, (used[-1] + 1) * 2 / BINS - 1
    low, high = min(low, threshold), max(high, threshold)
    room = max(0.02 * (high - low), 2 / BINS)
    return float(low - room), float(high + room)


def _resampled(spread: Spread, low: float, high: float) -> np.ndarray:
    """Counts `[_BARS]` between low and high, from the fine bins (each spread evenly over its width)."""
    edges = np.linspace(-1, 1, BINS + 1)
    below = np.concatenate([[0], np.cumsum(spread.bins)])
    wanted = np.linspace(low, high, _BARS + 1)
    counts: np.ndarray = np.diff(np.interp(wanted, edges, below))
    return counts
