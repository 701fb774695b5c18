"""Fit a model's calibration to how own words and words of other captions score (`word_scores`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttd.data.score_jobs import COUNTS, WIDTH
from ttd.data.tables import read_table
from ttd.encoders.calibration import Calibration
from ttd.errors import InputError
from ttd.files import whole_file

FEWEST = 64  # own words, below which nothing is fitted
_STEPS = 100


@dataclass(frozen=True)
class WordCounts:
    """How often words score what: `scores [N]` ascending, `own [N]` and `others [N]` counts."""

    scores: NDArray[np.float64]
    own: NDArray[np.int64]
    others: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """A calibration and what it was fitted to.

    Attributes:
        calibration: the two numbers.
        unseen: the share of own words, 0..0.5, that score as words of other captions do: what is named, not seen.
        saturated: the share of the words, both classes counting half, whose p(1-p) is below 0.01.
        counts: of the words.
    """

    calibration: Calibration
    unseen: float
    saturated: float
    counts: WordCounts


def read_counts(files: Iterable[Path]) -> WordCounts:
    """The counts of all shards together; see `WordScoreJob`."""
    own: dict[int, int] = {}
    others: dict[int, int] = {}
    for path in files:
        for batch in read_table(path, COUNTS):
            for place, mine, theirs in zip(*(batch.column(name).to_pylist() for name in COUNTS.names), strict=True):
                own[place] = own.get(place, 0) + mine
                others[place] = others.get(place, 0) + theirs
    places = np.array(sorted(own), np.float64)
    return WordCounts(
        (places + 0.5) * WIDTH,
        np.array([own[int(place)] for place in places], np.int64),
        np.array([others[int(place)] for place in places], np.int64),
    )


def fit(counts: WordCounts) -> Fitted:
    """Balanced logistic regression of the score: own words against words of other captions.

    Captions name what is not in the image. A word that is there rarely scores below the median of the other
    captions' words, so own words below it count as unseen, with as many above it, distributed as the others are;
    what remains of the own words is fitted.

    Raises:
        InputError: too few words, or own words score no better than others.
    """
    total, against = counts.own.sum(), counts.others.sum()
    if total < FEWEST or against < FEWEST:
        raise InputError(
            f"{total} own words and {against} of other captions are too few to fit a calibration to, at least {FEWEST} "
            "of each are needed: give more pairs"
        )
    own, others = counts.own / total, counts.others / against
    median = int(np.searchsorted(others.cumsum(), 0.5))
    unseen = float(own[: median + 1].sum() / others[: median + 1].sum())
    if unseen > 0.5:
        raise InputError(
            f"{unseen:.0%} of the words of these captions score on their images as words of other captions do: the "
            "captions and images do not fit together, or the model does not know them"
        )
    seen = _not_negative(np.where(np.arange(len(own)) <= median, 0.0, own - unseen * others)) / (1 - unseen)
    calibration = _logistic(counts.scores, seen / 2, others / 2)
    p = calibration_values(calibration, counts.scores)
    saturated = float(((own + others) / 2)[p * (1 - p) < 0.01].sum())
    return Fitted(calibration, unseen, saturated, counts)


def _not_negative(mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins `[N]` of a difference of two counts, which chance makes negative here and there: what is missing in a bin is
    taken from its neighbours, half from below and half from above, and the sum stays.
    """
    total = mass.cumsum()
    rising = (np.maximum.accumulate(total) + np.minimum.accumulate(total[::-1])[::-1]) / 2
    steps = np.diff(rising.clip(0), prepend=0.0)
    found: NDArray[np.float64] = steps * (total[-1] / steps.sum())
    return found


def saturated_share(calibration: Calibration, counts: WordCounts) -> float:
    """`Fitted.saturated` of another calibration."""
    p = calibration_values(calibration, counts.scores)
    weight = (counts.own / counts.own.sum() + counts.others / counts.others.sum()) / 2
    return float(weight[p * (1 - p) < 0.01].sum())


def calibration_values(calibration: Calibration, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """p of scores `[N]`, in float64."""
    values: NDArray[np.float64] = np.exp(-np.logaddexp(0, -calibration.w * (scores - calibration.c)))
    return values


def _logistic(x: NDArray[np.float64], positive: NDArray[np.float64], negative: NDArray[np.float64]) -> Calibration:
    """Newton's method on the weighted logistic loss, which is convex."""
    weight = positive + negative
    centre = float((x * weight).sum() / weight.sum())
    spread = float((((x - centre) ** 2) * weight).sum() / weight.sum()) ** 0.5 or 1.0
    design = np.stack([(x - centre) / spread, np.ones_like(x)])  # [2,N]
    solution = np.zeros(2)
    for _ in range(_STEPS):
        p = np.exp(-np.logaddexp(0, -(solution @ design)))
        gradient = design @ (p * weight - positive)
        hessian = (design * (p * (1 - p) * weight)) @ design.T
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        longest = float(np.abs(step).max())
        solution = solution - step * min(1.0, 2.0 / max(longest, 1e-12))  # far from the lowest point Newton overshoots
        if longest < 1e-10 and solution[0] > 0:
            return Calibration(float(solution[0] / spread), centre - spread * float(solution[1] / solution[0]))
    raise InputError("the scores of own words and of other captions' words cannot be separated: give more pairs")


def draw(counts: WordCounts, calibration: Calibration | None, path: Path) -> None:
    """Both histograms and, where there is one, the fitted curve, as a PNG."""
    from matplotlib.figure import Figure

    low, high = float(counts.scores[0]), float(counts.scores[-1])
    room = 0.02 * (high - low) + WIDTH
    edges = np.linspace(low - room, high + room, 61).tolist()
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for label, one in (("words of the own captions", counts.own), ("words of other captions", counts.others)):
        axes.hist(counts.scores, edges, weights=one / max(1, one.sum()), alpha=0.55, label=f"{label} ({one.sum():,})")
    title = "nothing was fitted" if calibration is None else f"p = sigmoid(w (cos - c)), {calibration}"
    axes.set(xlabel="s_pixel", ylabel="share of the words", title=title)
    if calibration is not None:
        curve = axes.twinx()
        line = np.linspace(edges[0], edges[-1], 300)
        curve.plot(line, calibration_values(calibration, line), color="black", label="p")
        curve.axvline(calibration.c, color="black", linestyle=":", linewidth=1)
        curve.set(ylabel="p", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=110)
