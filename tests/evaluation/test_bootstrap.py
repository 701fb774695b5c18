"""The paired bootstrap against SciPy's, and measures of drawn items against the tallies of the same items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.evaluation import layouts
from tests.evaluation.oracle import Oracle
from tests.evaluation.tasks import test_multilabel, test_referring, test_tagmask
from ttd.evaluation.bootstrap import LEVEL, Difference, mean_of, paired_differences
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.model import TTD


def _voc(root: Path) -> list[str]:
    return list(layouts.write(root, "voc", 5)[2])


def _tagmask(root: Path) -> list[str]:
    test_tagmask.write_set(root, 5)
    sorted((root / "masks").glob("*.png"))[1].unlink()
    return list(test_tagmask.TITLES)


def _refcoco(root: Path) -> list[str]:
    test_referring.write_refer(root)
    return test_referring.TITLES


def _coco(root: Path) -> list[str]:
    from ttd.evaluation.datasets.classes import read_classes

    test_multilabel.write_coco(root, 5)
    return read_classes("coco-80").titles


@pytest.mark.parametrize(
    ("name", "write", "measures"),
    [
        ("voc", _voc, {"mIoU"}),
        ("tagmask", _tagmask, {"s_pixel: F1", "CaptionIoU"}),
        ("refcoco", _refcoco, {"mIoU"}),
        ("coco-80", _coco, {"s_pixel: mAP"}),
    ],
)
def test_a_draw_measures_what_a_tally_of_its_items_does(
    name: str, write: Callable[[Path], list[str]], measures: set[str], tmp_path: Path
) -> None:
    titles = write(tmp_path)
    benchmark = open_benchmark(name, tmp_path, Choices(protocol="default"))
    model = TTD(Oracle([*titles[:2], *titles[3:], titles[2]]))  # calls most things by another name
    records = [{"id": sample.id, **benchmark.measure(model, number)} for number, sample in enumerate(benchmark.samples)]
    rng = np.random.default_rng(0)
    counts = np.array([np.ones(len(records)), *rng.integers(0, 3, (6, len(records)))])
    counts = counts[counts.any(1)]
    resampler = benchmark.resampler(records)
    assert resampler is not None
    found = resampler(counts)
    assert set(found) == measures
    for draw, row in enumerate(counts.astype(int)):
        tally = benchmark.tally()
        for record, times in zip(records, row, strict=True):
            for _ in range(times):
                tally.add(record)
        numbers: dict[str, Any] = tally.result().numbers if row.any() else {}
        for measure, values in found.items():
            assert 0 < values[0] < 1
            assert values[draw] == pytest.approx(numbers[measure], rel=1e-9, nan_ok=True), (measure, row)


def difference(before: np.ndarray, *after: np.ndarray, draws: int = 2000) -> Difference:
    return paired_differences(mean_of(before), [mean_of(one) for one in after], len(before), draws=draws)[""]


def test_intervals_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(0.5, 0.2, 200)
    after = before + rng.normal(0.02, 0.1, (3, 200))
    found = difference(before, *after, draws=20_000)
    gains = after.mean(0) - before
    reference = stats.bootstrap(
        (gains,), np.mean, n_resamples=20_000, method="percentile", confidence_level=LEVEL / 100, random_state=2
    ).confidence_interval
    # Each end is a quantile of 20,000 draws: its own deviation is about 0.02 of the draws' deviation.
    slack = 0.1 * gains.std() / np.sqrt(len(gains))
    assert found.low == pytest.approx(reference.low, abs=slack)
    assert found.high == pytest.approx(reference.high, abs=slack)
    assert found.mean == pytest.approx(gains.mean())
    assert found.runs == pytest.approx((after - before).mean(1))


def test_equal_models_differ_by_nothing_and_the_draws_are_the_same_again() -> None:
    found = difference(np.array([0.1, 0.3]), np.array([0.2, 0.4]))
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    same = difference(np.array([0.1, 0.2, 0.9]), np.array([0.1, 0.2, 0.9]))
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    assert len({difference(np.array([0.1, 0.2]), np.array([0.3, 0.1])) for _ in range(2)}) == 1
    assert paired_differences(lambda counts: {}, [lambda counts: {}], 3) == {}
