"""The proof in small: what it writes, that it goes on, and its statistics against plain arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from experiments.prove import work
from experiments.prove.__main__ import main as command
from experiments.prove.inputs import PAIRS
from experiments.prove.plan import BASES, RUNS, TABLES
from experiments.prove.tables import difference, reached, to_markdown
from tests.tolerance import MINI, float_tolerance
from ttd.errors import InputError
from ttd.training.config import read_config

SMALL = work.Size(steps=2, pairs=64, test=256, validation=16)
SOME = tuple(run for run in RUNS if run.name == "pruned-pass")


def test_every_row_has_a_run_and_every_run_can_be_configured() -> None:
    names = {run.name for run in RUNS}
    assert len(names) == len(RUNS)
    shown = {name for table in TABLES for _, name in table.rows}
    assert shown == names | set(BASES)
    for run in RUNS:
        assert run.data in PAIRS
        tags = ["data.tags=x"] if run.tags else []
        read_config(run.config, [*run.settings, *tags])


def test_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(40), rng.random((3, 40))
    before[3], after[1, 7] = math.nan, math.nan
    found = difference(before.tolist(), after.tolist())
    kept = [i for i in range(40) if i not in (3, 7)]
    gaps = [np.mean([after[s][i] for s in range(3)]) - before[i] for i in kept]
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.error == pytest.approx(1.96 * np.std(gaps, ddof=1) / math.sqrt(len(kept)))
    assert found.seeds == pytest.approx([np.mean([after[s][i] - before[i] for i in kept]) for s in range(3)])


def test_reached_asks_every_seed() -> None:
    assert reached([0.6, 0.7], 0.5, 1)
    assert not reached([0.6, 0.5], 0.5, 1)
    assert reached([0.4, 0.5], 0.5, -1)
    assert not reached([0.4, 0.51], 0.5, -1)


@pytest.mark.slow
def test_a_small_proof_goes_on_where_it_stopped(tmp_path: Path) -> None:
    work.prove(tmp_path, SMALL, runs=SOME, seeds=(0,), workers=1)
    text = to_markdown(tmp_path)
    for table in TABLES:
        assert table.title in text
    assert "Pruning by `mini`'s own cosines" in text
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "keep.parquet", tmp_path / "base.json")}
    measured = tmp_path / "runs" / "pruned-pass-0" / work.MEASURED
    first = json.loads(measured.read_text("utf-8"))
    measured.unlink()
    work.prove(tmp_path, SMALL, runs=SOME, seeds=(0,), workers=2)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    # Measured in a process of its own, with one thread. The numbers are shares of pixels and words, and of the values
    # between 0 and 1 about this share is so close to a threshold or to each other that another rounding decides.
    undecided = 4 * float_tolerance(torch.float32, MINI)
    assert json.loads(measured.read_text("utf-8"))["numbers"] == pytest.approx(first["numbers"], abs=undecided)
    with pytest.raises(InputError, match="another size"):
        work.prove(tmp_path, work.Size(steps=3), runs=SOME, seeds=(0,), workers=1)


def test_the_command_refuses_unknown_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--out", str(tmp_path / "p"), "--run", "nothing"])
    assert result.exit_code == 2
    assert "There is no run nothing: choose from ttd" in result.stderr
    assert not (tmp_path / "p").exists()
