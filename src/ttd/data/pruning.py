"""Keep the pairs whose score lies above mean + k standard deviations, in memory that does not grow.

One pass over the score files gives mean, deviation and histogram; a second one writes the keep-list.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ttd.data.tables import SCORES, metadata, read_table
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.viz.typography import FAINT, INK, PAPER, fitted, font

ALL = "all"
BINS = 1000  # over -1..1


@dataclass
class Spread:
    """Count, mean, deviation and histogram of scores that arrive piece by piece (float64).

    Pieces are merged by the parallel form of Welford's update (Chan, Golub, LeVeque 1983), which loses no
    digits where the sum of squares would.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, scores: NDArray[np.floating[Any]]) -> None:
        """Take in scores `[N]` in -1..1; raises `InputError` where one is not finite."""
        if not len(scores):
            return
        values = scores.astype(np.float64)
        if not np.isfinite(values).all():
            raise InputError("a score is not finite: make the score files again")
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + len(values)
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.count * len(values) / total
        self.mean += apart * len(values) / total
        self.count = total
        places = np.clip(((values + 1) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
        self.bins += np.bincount(places, minlength=BINS)

    @property
    def deviation(self) -> float:
        """Standard deviation over all scores (divided by their count)."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def cut(self, k: float) -> float:
        """mean + k standard deviations."""
        return self.mean + k * self.deviation


@dataclass(frozen=True)
class Pruned:
    """What pruning found.

    Attributes:
        spreads: by data set, or under "all".
        kept: pairs kept, by the same names.
        k: how many deviations above the mean the cut lies.
    """

    spreads: dict[str, Spread]
    kept: dict[str, int]
    k: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        sets = {
            name: {
                "pairs": spread.count,
                "mean": spread.mean,
                "deviation": spread.deviation,
                "cut": spread.cut(self.k),
                "kept": self.kept[name],
            }
            for name, spread in self.spreads.items()
        }
        pairs, kept = sum(spread.count for spread in self.spreads.values()), sum(self.kept.values())
        return {"k": self.k, "pairs": pairs, "kept": kept, "share": kept / pairs, "sets": sets}


def prune(files: Sequence[Path], keep: Path, k: float = 1.0, *, per_set: bool = False) -> Pruned:
    """Write the keep-list of score files.

    Args:
        files: Parquet with shard, key, score; their order does not matter beyond the last digits.
        keep: the keep-list to write, with the same columns.
        k: keep what lies above mean + k standard deviations.
        per_set: a cut for every data set, which is the folder in a shard's name; else one for all.

    Raises:
        InputError: a file cannot be read, there are no scores, or none lies above the cut.
    """
    if not math.isfinite(k):
        raise InputError(f"k must be a number, not {k}")
    spreads = spread_of(files, per_set=per_set)
    if not spreads:
        raise InputError("there are no scores to prune by: no pair could be scored")
    kept = dict.fromkeys(spreads, 0)
    cuts = {name: spread.cut(k) for name, spread in spreads.items()}
    about = metadata({"k": k, "cuts": cuts})
    with (
        whole_file(keep) as part,
        pq.ParquetWriter(part, SCORES.with_metadata(about), compression="zstd", write_page_checksum=True) as writer,
    ):
        for file in files:
            for batch in read_table(file, SCORES):
                for name, rows in _by_set(batch, per_set):
                    scores = rows.column("score").to_numpy().astype(np.float64)
                    chosen = rows.filter(pa.array(scores > cuts[name]))
                    kept[name] += len(chosen)
                    table = pa.Table.from_batches([chosen])
                    writer.write_table(table.replace_schema_metadata(about))
        if not sum(kept.values()):
            raise InputError(f"no pair lies above mean + {k:g} standard deviations: lower k")
    return Pruned(spreads, kept, k)


def spread_of(files: Iterable[Path], *, per_set: bool = False) -> dict[str, Spread]:
    """The spread of all scores, in one pass over the files; by data set, or under "all"."""
    spreads: dict[str, Spread] = {}
    for file in files:
        for batch in read_table(file, SCORES):
            for name, rows in _by_set(batch, per_set):
                spreads.setdefault(name, Spread()).add(rows.column("score").to_numpy())
    return dict(sorted(spreads.items()))


def _by_set(batch: pa.RecordBatch, per_set: bool) -> Iterable[tuple[str, pa.RecordBatch]]:
    """The rows of each data set."""
    if not len(batch):
        return
    if not per_set:
        yield ALL, batch
        return
    sets = pc.replace_substring_regex(batch.column("shard"), r"/?[^/]*$", "")
    for name in pc.unique(sets).to_pylist():
        yield name or ALL, batch.filter(pc.equal(sets, name))


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
    draw.text((_EDGE, top + 10), fitted(title, face, _WIDTH - 2 * _EDGE), font=face, fill=INK)
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
