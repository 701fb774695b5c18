"""Whether the background stays when more classes are asked for: by the embedded model, and by hand."""

from __future__ import annotations

import pytest

import ttd
from ttd.model import TTD
from ttd.scenes import Scenes
from ttd.scenes.background_recall import ASKED, BackgroundRow, background_rows


@pytest.fixture(scope="module")
def mini() -> TTD:
    return ttd.load("mini")


@pytest.fixture(scope="module")
def rows(mini: TTD) -> dict[tuple[str, int], BackgroundRow]:
    world = Scenes("test")
    return {(row.rule, row.asked): row for row in background_rows(mini, [world[i] for i in range(30)])}


def test_the_background_stays_however_many_nouns_are_asked(rows: dict[tuple[str, int], BackgroundRow]) -> None:
    calibrated = [rows["calibrated", asked] for asked in ASKED]
    assert min(row.background for row in calibrated) >= 0.89
    assert all(0.5 <= row.share <= 0.95 for row in calibrated)
    assert calibrated[0].share - calibrated[-1].share <= 0.15
    assert calibrated[0].objects > 0.4
    joint = [rows["joint min-max", asked] for asked in ASKED]
    assert joint[0].background - joint[-1].background > 0.3  # what was wrong before


def test_thresholds_at_the_ends_find_all_or_nothing(mini: TTD) -> None:
    world = Scenes("test")
    scenes = [world[i] for i in range(3)]
    for threshold, background, objects in ((1.0, 1.0, 0.0), (0.0, 0.0, None)):
        for row in background_rows(mini, scenes, counts=(3,), threshold=threshold):
            if row.rule == "joint min-max" and threshold == 1.0:
                continue  # the best cell of all scores 1 but for rounding
            assert (row.background, row.share) == (background, background)
            assert objects is None or row.objects == objects
            assert row.truth == pytest.approx(sum((s.label_map == 0).mean() for s in scenes) / 3)
