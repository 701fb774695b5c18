from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttd.data.calibration_fit import WordCounts, calibration_values, draw, fit, saturated_share
from ttd.data.score_jobs import WIDTH
from ttd.encoders.calibration import Calibration
from ttd.errors import InputError


def counted(own: np.ndarray, others: np.ndarray) -> WordCounts:
    places = np.floor(np.concatenate([own, others]) / WIDTH).astype(np.int64)
    bins = np.unique(places)
    row = np.searchsorted(bins, places)
    counts = [np.bincount(part, minlength=len(bins)) for part in (row[: len(own)], row[len(own) :])]
    return WordCounts((bins + 0.5) * WIDTH, *counts)


@settings(max_examples=15, deadline=None)
@given(
    low=st.floats(0.0, 0.15),
    apart=st.floats(0.2, 0.3),
    width=st.floats(0.09, 0.1),
    unseen=st.floats(0.0, 0.25),
    seed=st.integers(0, 99),
)
def test_two_bells_give_the_curve_between_them(
    low: float, apart: float, width: float, unseen: float, seed: int
) -> None:
    """Of two normal distributions of one width the balanced posterior is a sigmoid, whose numbers are known.

    Chance decides w where bells hardly overlap and many words are unseen: its deviation is 0.07 in the worst corner of
    this box, after a bias of at most 0.17 in the opposite one.
    """
    random = np.random.default_rng(seed)
    others = random.normal(low, width, 40_000)
    lost = random.random(8_000) < unseen
    own = np.where(lost, random.normal(low, width, 8_000), random.normal(low + apart, width, 8_000))
    found = fit(counted(own, others))
    w, c = apart / width**2, low + apart / 2
    below = math.erfc(apart / width / 2**0.5) / 2  # of the seen words, which are taken for unseen, too
    assert found.unseen == pytest.approx(unseen + (1 - unseen) * 2 * below, abs=0.03)
    assert found.calibration.c == pytest.approx(c, abs=0.03)
    assert found.calibration.w == pytest.approx(w, rel=0.35)


def test_the_fit_is_at_the_lowest_point_of_its_loss() -> None:
    scores = (np.arange(8) + 0.5) * WIDTH
    counts = WordCounts(scores, np.array([1, 2, 3, 20, 30, 25, 10, 9]), np.array([90, 80, 40, 30, 9, 3, 1, 0]))
    found = fit(counts)
    own, others = counts.own / counts.own.sum(), counts.others / counts.others.sum()
    median = int(np.searchsorted(others.cumsum(), 0.5))
    seen = np.where(np.arange(len(own)) <= median, 0.0, own - found.unseen * others)
    assert (seen >= 0).all()
    seen /= 1 - found.unseen

    def loss(w: float, c: float) -> float:
        p = calibration_values(Calibration(w, c), counts.scores)
        return float(-(seen * np.log(p) + others * np.log1p(-p)).sum())

    w, c = found.calibration.w, found.calibration.c
    for dw, dc in ((1e-3, 0), (-1e-3, 0), (0, 1e-5), (0, -1e-5)):
        assert loss(w * (1 + dw), c + dc) > loss(w, c)


def test_what_cannot_be_fitted_is_said() -> None:
    random = np.random.default_rng(0)
    few, many = random.normal(0.3, 0.1, 20), random.normal(0.3, 0.1, 5000)
    with pytest.raises(InputError, match="too few"):
        fit(counted(few, many))
    with pytest.raises(InputError, match="too few"):
        fit(WordCounts(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)))
    with pytest.raises(InputError, match="do not fit together"):
        fit(counted(random.normal(0.3, 0.1, 500), many))
    with pytest.raises(InputError, match="cannot be separated"):
        fit(counted(np.full(100, 0.9), np.full(100, 0.1)))


def test_saturation_is_counted() -> None:
    counts = counted(np.full(100, 0.3), np.concatenate([np.full(50, -0.3), np.full(50, 0.21)]))
    assert saturated_share(Calibration(10.0, 0.25), counts) == pytest.approx(0.25)  # p(1-p) at -0.3 alone is below 0.01
    assert saturated_share(Calibration(1e5, 0.25), counts) == pytest.approx(1.0)


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts = counted(random.normal(0.4, 0.1, 300), random.normal(0.1, 0.1, 900))
    for name, calibration in (("fitted", fit(counts).calibration), ("refused", None)):
        draw(counts, calibration, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.format == "PNG"
            assert len(set(picture.convert("RGB").resize((200, 100)).tobytes())) > 20
    assert (tmp_path / "fitted.png").read_bytes() != (tmp_path / "refused.png").read_bytes()
