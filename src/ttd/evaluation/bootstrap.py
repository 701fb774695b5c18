"""Confidence intervals of a difference between two models: a paired bootstrap over the items that both measured.

Items (images, or captions) are drawn again with replacement, the same for both models, and the measure is computed of
every draw; the interval holds the middle 95 % of the differences. A draw is how often each item counts, so that a
measure of the whole set, such as mIoU, is as easy to draw again as a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 95  # percent of the differences that lie in the interval
_NUMBERS_AT_ONCE = 4_000_000

Counts = NDArray[np.float64]
"""`[B,S]`: how often each of S items counts in each of B draws."""
Statistic = Callable[[Counts], dict[str, NDArray[np.float64]]]
"""Measures by name, each `[B]`; NaN where a draw has nothing to measure."""


@dataclass(frozen=True)
class Difference:
    """After minus before on the same items, `after` being the mean over runs (seeds, adapters).

    Attributes:
        mean: of the items as they are.
        low, high: ends of the 95 % interval.
        runs: the difference of each run.
    """

    mean: float
    low: float
    high: float
    runs: tuple[float, ...]


def paired_differences(
    before: Statistic, after: Sequence[Statistic], items: int, *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """The differences of all measures that both sides have.

    Args:
        before, after: measures of the same items in the same order.
        items: how many these are.
        draws, seed: of the bootstrap.
    """
    as_they_are = np.ones((1, items))
    base, runs = before(as_they_are), [one(as_they_are) for one in after]
    names = [name for name in base if all(name in run for run in runs)]
    gaps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for counts in _draws(items, draws, seed):
        old, new = before(counts), [one(counts) for one in after]
        for name in names:
            gaps[name].append(np.mean([one[name] for one in new], axis=0) - old[name])
    found = {}
    for name in names:
        low, high = _middle(np.concatenate(gaps[name]))
        single = tuple(float(run[name][0] - base[name][0]) for run in runs)
        found[name] = Difference(float(np.mean(single)), low, high, single)
    return found


def mean_of(values: NDArray[np.float64], name: str = "", parts: NDArray[np.float64] | None = None) -> Statistic:
    """The mean of values `[S]`; with `parts` `[S]`: the sum of the values over the sum of the parts."""
    table = np.stack([values, np.ones(len(values)) if parts is None else parts], 1)

    def measure(counts: Counts) -> dict[str, NDArray[np.float64]]:
        total, count = (counts @ table).T
        return {name: ratio(total, count)}

    return measure


def mean_statistic(several: Sequence[Statistic]) -> Statistic:
    """The means of the measures of several runs."""

    def measure(counts: Counts) -> dict[str, NDArray[np.float64]]:
        found = [one(counts) for one in several]
        return {name: np.mean([one[name] for one in found], axis=0) for name in found[0]}

    return measure


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """`part / whole`, NaN where there is nothing to divide by."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))


def _draws(items: int, draws: int, seed: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // max(items, 1))
    for first in range(0, draws, at_once):
        yield rng.multinomial(items, np.full(items, 1 / items), min(at_once, draws - first)).astype(np.float64)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
