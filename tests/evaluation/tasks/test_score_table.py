"""Scores kept in a file: the same numbers as in memory, and memory that does not grow with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ttd.evaluation.metrics import auc
from ttd.evaluation.tasks import score_table
from ttd.evaluation.tasks.score_table import Mean, PresentAboveAbsent, ScoreTable

GROWTH = """
from pathlib import Path
import numpy as np
from ttd.evaluation.tasks.score_table import PresentAboveAbsent

def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])

rng, table = np.random.default_rng(0), PresentAboveAbsent()
scores, present = rng.random((100, 500)).astype(np.float32), rng.random((100, 500)) < 0.1
for n in range(20_000):
    if n == 1000:
        before = peak()
    table.add(scores[n % 100], present[n % 100])
assert 0 < table.numbers["AUC per word"] < 1
print(peak() - before)
"""


@pytest.mark.parametrize("at_once", [1, 7, 40, 10_000])
def test_columns_come_back_whole(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_table, "_VALUES_AT_ONCE", at_once)
    values = np.random.default_rng(0).random((11, 7)).astype(np.float32)
    table = ScoreTable(np.float32)
    for row in values[:5]:
        table.add(row)
    assert np.array_equal(np.stack(list(table.columns())), values[:5].T)
    for row in values[5:]:
        table.add(row)
    assert np.array_equal(np.stack(list(table.columns())), values.T)


def test_the_numbers_are_those_of_the_whole_arrays() -> None:
    rng = np.random.default_rng(1)
    scores, present = rng.random((300, 9)).astype(np.float32).round(2), rng.random((300, 9)) < 0.3
    present[:, 4], present[7] = False, True
    table = PresentAboveAbsent()
    assert not table
    for row, there in zip(scores, present, strict=True):
        table.add(row, there)
    assert table
    tables = {"AUC per image": (scores, present), "AUC per word": (scores.T, present.T)}
    for name, pair in tables.items():
        values = [auc(row[there], row[~there]) for row, there in zip(*pair, strict=True)]
        known = [value for value in values if not np.isnan(value)]
        assert table.numbers[name] == (np.mean(known) if known else pytest.approx(np.nan, nan_ok=True))


def test_a_mean_without_numbers_is_none() -> None:
    mean = Mean()
    mean.add(float("nan"))
    assert np.isnan(mean.value)
    mean.add(0.25)
    assert mean.value == 0.25


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count of memory")
def test_memory_does_not_grow_with_the_images() -> None:
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, timeout=300, check=True)
    # 20,000 images and 500 words are 50 MB in memory; what is left is one block of columns and its parts.
    assert int(done.stdout) < 30_000
