"""The proof in small: what it writes, that it goes on; its measures and its statistics against plain arithmetic."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from experiments.prove import figure, tables, work
from experiments.prove.__main__ import main
from experiments.prove.inputs import PAIRS
from experiments.prove.measured import (
    GROUPS,
    Evidence,
    Measured,
    Thresholds,
    background_confusion,
    choose_thresholds,
    measure,
    painted,
    scene_set,
)
from experiments.prove.plan import ABLATION_TABLES, AIM_A, AIM_A_BOUNDS, AIM_B, AIM_B_BOUNDS, BLOCKS, MAIN_TABLES, RUNS
from experiments.prove.rows import PRUNED, ROWS, Difference, Row, difference, read_rows
from tests.scenes.oracle import Oracle
from tests.tolerance import MINI, float_tolerance
from ttd.errors import InputError
from ttd.evaluation.metrics import class_scores
from ttd.evaluation.runner import measure_all
from ttd.evaluation.tasks.tag_tables import THRESHOLDS, Cut
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import Options
from ttd.model import TTD, load
from ttd.scenes.nouns import NOUNS
from ttd.training.config import read_config

SCENES = 32
SMALL = work.Size(steps=2, pairs=64, test=SCENES, validation=GROUPS)


@pytest.fixture(scope="module")
def mini() -> TTD:
    return load("mini")


def test_every_row_of_a_table_is_a_run_that_can_be_configured() -> None:
    names = {run.name for run in RUNS}
    assert len(names) == len(RUNS)
    shown = {f"{run}.{block}" for table in MAIN_TABLES for _, run in table.rows for block in BLOCKS}
    shown |= {f"{run}.values" for table in ABLATION_TABLES for _, run in table.rows}
    assert shown == names | {f"base.{block}" for block in BLOCKS}
    for run in RUNS:
        assert run.data in PAIRS
        config = read_config(run.config, [*run.settings, *(["data.tags=x"] if run.tags else [])])
        assert config.loss.similarity == ("raw" if "raw" in run.name else "calibrated")


@pytest.mark.slow
def test_an_oracle_has_the_highest_measures(tmp_path: Path) -> None:
    known = [*painted("test", SCENES), *painted("validation", GROUPS), *painted("test", SCENES, 1)]
    numbers = measure(TTD(Oracle(known)), tmp_path, SCENES, GROUPS).numbers
    for name in ("mIoU, words there", "mIoU, all words", "mAP", "AUC per image", "AUC per word"):
        assert numbers[name] == pytest.approx(1), name
    # The background's own p is that of a noun which is not there.
    for name in ("CaptionIoU, p, chosen", "CaptionIoU of objects, p, chosen", "CaptionIoU pooled, p, chosen"):
        assert numbers[name] == pytest.approx(1, abs=0.02), name
    assert numbers["mIoU, background, chosen"] == pytest.approx(1)
    assert numbers["absent selected"] == 0
    assert numbers["F1, shuffled"] < 0.6


def test_backgrounds_are_those_of_segment(mini: TTD) -> None:
    scenes = painted("test", GROUPS)
    (found,) = background_confusion(mini, scenes, (0.5,))
    agreed = 0
    for number, scene in enumerate(scenes):
        labels = mini.segment(scene.image, NOUNS).label_map.astype(int) - 1  # -1: background
        truth = np.array([-1, *(NOUNS.index(noun) for noun in scene.nouns)])[scene.label_map]
        agreed += int((labels == truth).sum())
        assert np.trace(found[number]) == pytest.approx((labels == truth).sum(), abs=8)  # one scene in each group
    assert agreed > 0


@pytest.mark.slow
def test_thresholds_are_the_best_of_those_tried(mini: TTD, tmp_path: Path) -> None:
    chosen = choose_thresholds(mini, scene_set(tmp_path, "validation", GROUPS))
    tried = background_confusion(mini, painted("validation", GROUPS), THRESHOLDS)
    mious = [class_scores(one.sum(0)).mean["mIoU"] for one in tried]
    assert mious[THRESHOLDS.index(chosen.background)] == max(mious)
    assert {chosen.norm, chosen.p} <= set(THRESHOLDS)


@pytest.mark.slow
def test_measures_without_a_group_are_those_of_the_other_scenes(mini: TTD, tmp_path: Path) -> None:
    data = scene_set(tmp_path, "test", SCENES)
    part = Evidence(mini, data, Thresholds()).numbers({0})
    others = replace(data, rows=[row for row in data.rows if int(row.sample.id) >= SCENES // GROUPS])
    half = Cut("calibrated", 0.5)
    alone = measure_all(mini, TagMask(others, Options(), Options(), scores=("s_pixel",), cuts=[half])).result()
    asked = {name: part[name] for name in ("F1", "mAP", "absent selected", "AUC per image", "AUC per word")}
    expected = {name: alone.numbers.get(name, alone.numbers.get(f"s_pixel: {name}")) for name in asked}
    assert asked == pytest.approx(expected, abs=float_tolerance(torch.float32, MINI))
    assert part["CaptionIoU, p"] == pytest.approx(alone.rows["cuts"][0]["CaptionIoU"], abs=1e-3)


def row(run: str, seed: int | None, values: np.ndarray) -> Row:
    """A measure that is a mean over 32 scenes in 16 groups of two."""
    groups = values.reshape(GROUPS, -1)
    without = [float(np.delete(groups, k, 0).mean()) for k in range(GROUPS)]
    return Row(run, seed, "2:0", "values", "", [], {"test": 32}, {"x": float(values.mean())}, {"x": without}, {})


def test_an_interval_over_scenes_is_that_of_the_paired_means() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random(32), rng.random(32)
    found = difference(row("base.values", None, before), [row("a", 0, after)], "x")
    means = (after - before).reshape(GROUPS, -1).mean(1)
    assert found.mean == pytest.approx((after - before).mean())
    assert found.error == pytest.approx(1.96 * means.std(ddof=1) / math.sqrt(GROUPS))


def test_an_interval_over_seeds_is_added_to_it() -> None:
    rng = np.random.default_rng(1)
    before = rng.random(32)
    after = [row("a", seed, before + gain) for seed, gain in enumerate((0.1, 0.2, 0.6))]  # no spread over scenes
    found = difference(row("base.values", None, before), after, "x")
    assert found.seeds == pytest.approx((0.1, 0.2, 0.6))
    assert found.error == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.6], ddof=1) / math.sqrt(3), rel=1e-5)
    assert not found.is_better()
    assert Difference(0.3, 0.2, (0.3, 0.3, 0.3)).is_better()
    assert not Difference(0.3, 0.2, (1.0, 0.2, -0.3)).is_better()
    assert Difference(-0.3, 0.2, (-0.3, -0.3)).is_better(-1)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = [row("a.values", seed, np.full(32, seed / 7)) for seed in (1, 0)]
    for one in (*written, row("a.values-b", 0, np.ones(32)), row("base.values", None, np.zeros(32))):
        one.write(tmp_path)
    found = read_rows(tmp_path, "a.values")
    assert [one.seed for one in found] == [0, 1]
    assert found[1].numbers["x"] == pytest.approx(1 / 7, abs=1e-5)
    assert replace(found[1], numbers={}, without={}) == replace(written[0], numbers={}, without={})
    (tmp_path / "a.values-2.json").write_text('{"run": "a.values"}', "utf-8")
    with pytest.raises(InputError, match=r"a\.values-2\.json"):
        read_rows(tmp_path, "a.values")


@pytest.mark.slow
def test_a_small_proof_goes_on_where_it_stopped(tmp_path: Path) -> None:
    proof = work.Proof(tmp_path, "mini", SMALL)
    some = tuple(run for run in RUNS if run.name == "pruned-pass.values")
    work.prove(proof, runs=some, seeds=(0,), workers=1)
    text = tables.to_markdown(proof.rows)
    shown = [table.title for table in (*MAIN_TABLES, *ABLATION_TABLES) if f"### {table.title}\n" in text]
    assert shown == [table.title for table in ABLATION_TABLES if ("pruned, one pass", "pruned-pass") in table.rows]
    assert "- `pruned-pass.values`: seeds 1, 2\n" in text
    assert "Pruning by the base's own cosines" in text
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "data/keep.parquet", proof.rows / "base.values.json")
    }
    made = proof.rows / "pruned-pass.values-0.json"
    first = json.loads(made.read_text("utf-8"))
    made.unlink()
    work.prove(proof, runs=some, seeds=(0,), workers=2)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    # Measured in a process of its own, with one thread. The numbers are shares of pixels and words, and of the values
    # between 0 and 1 about this share is so close to a threshold or to each other that another rounding decides.
    undecided = 4 * float_tolerance(torch.float32, MINI)
    assert json.loads(made.read_text("utf-8"))["numbers"] == pytest.approx(first["numbers"], abs=undecided, nan_ok=True)
    with pytest.raises(InputError, match="another size"):
        work.prove(work.Proof(tmp_path, "mini", work.Size(steps=3)), runs=some, seeds=(0,), workers=1)


def test_the_command_refuses_unknown_runs(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "p"), "--run", "nothing"])
    assert result.exit_code == 2
    assert "There is no run nothing: choose from paper-fitted.values" in result.stderr
    assert not (tmp_path / "p").exists()


def test_the_page_is_what_the_committed_rows_say(tmp_path: Path) -> None:
    result = CliRunner().invoke(tables.main, ["--out", str(tmp_path / "proof.md")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "proof.md").read_text("utf-8") == (ROWS.parents[1] / "docs/proof.md").read_text("utf-8")


def test_every_number_on_training_in_the_results_stands_in_the_proof() -> None:
    docs = ROWS.parents[1] / "docs"
    section = (docs / "results.md").read_text("utf-8").split("## Training with TTD")[1].split("\n## ")[0]
    cited = set(re.findall(r"(?<!\d)\.\d{3}(?!\d)", section))
    assert len(cited) > 20
    proof = (docs / "proof.md").read_text("utf-8")
    assert [number for number in sorted(cited) if f"0{number}" not in proof and f" {number}" not in proof] == []


def settings(names: list[str]) -> dict[str, object]:
    """By name, numbers as numbers."""
    pairs = [one.split("=") for one in names]
    return {name: float(value) if value[0].isdigit() else value for name, value in pairs}


def test_the_committed_rows_are_of_the_plan_and_of_the_model_in_the_package(mini: TTD, tmp_path: Path) -> None:
    runs = {run.name: run for run in RUNS}
    (tmp_path / "rows").symlink_to(ROWS / "mini")
    paths = sorted((ROWS / "mini").glob("*.json"))
    assert paths
    asked = {*AIM_A, *AIM_A_BOUNDS, *AIM_B, *AIM_B_BOUNDS}
    for path in paths:
        if path.name == PRUNED or path.name.startswith("fitted."):
            continue
        one = Row.read(path)
        assert one.file_name == path.name
        assert one.base == mini.encoder.fingerprint()
        assert asked <= set(one.numbers)
        if one.seed is not None:
            planned = settings(work.Job(work.Proof(tmp_path), runs[one.run], one.seed).settings)
            trained = settings(one.settings)
            assert trained.keys() == planned.keys()
            for name, value in planned.items():  # the fitted pair depends on the kernels, in its last digit
                assert trained[name] == (pytest.approx(value, rel=0.01) if name in ("loss.w", "loss.c") else value)


def test_a_folder_without_a_base_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(tables.main, [str(tmp_path), "--out", str(tmp_path / "proof.md")])
    assert result.exit_code == 2
    assert "holds no row of a model before training" in result.stderr


@pytest.mark.slow
def test_measured_without_names_every_measure(mini: TTD, tmp_path: Path) -> None:
    found: Measured = measure(mini, tmp_path, GROUPS, GROUPS)
    chosen = {"threshold of min-max", "threshold of p", "background's threshold"}
    assert set(found.numbers) == set(found.without) | chosen
    assert {len(values) for values in found.without.values()} == {GROUPS}


def test_the_figure_has_a_panel_for_every_row(mini: TTD, tmp_path: Path) -> None:
    scenes = figure.shown_scenes(2)
    assert all(len(scene.true_words) > 1 for scene in scenes)
    figure.draw({"a": (mini, 0.2), "b": (mini, 0.5)}, scenes, tmp_path / "a.png")
    figure.draw({"a": (mini, 0.2)}, scenes, tmp_path / "b.jpg")
    sizes = [Image.open(tmp_path / name).size for name in ("a.png", "b.jpg")]
    assert sizes[0][0] * 3 == pytest.approx(sizes[1][0] * 4, abs=8)  # image, truth and the models
    assert sizes[0][1] == sizes[1][1]


def test_a_figure_of_two_blocks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    row("a.values", 0, np.ones(32)).write(tmp_path / "rows")
    replace(row("a.maskclip", 0, np.ones(32)), method="maskclip").write(tmp_path / "rows")
    named = ["--row", "a.values-0", "--row", "a.maskclip-0"]
    result = CliRunner().invoke(figure.main, [str(tmp_path), *named, "--out", str(tmp_path / "x.png")])
    assert result.exit_code == 2
    assert "these rows are of several last blocks, maskclip, values" in result.stderr
    missing = CliRunner().invoke(figure.main, [str(tmp_path), "--row", "b-0", "--out", str(tmp_path / "x.png")])
    assert missing.exit_code == 2
    assert "b-0.json" in missing.stderr
    assert not (tmp_path / "x.png").exists()
    other = CliRunner().invoke(figure.main, [str(tmp_path), *named[:2], "--out", str(tmp_path / "x.pdf")])
    assert other.exit_code == 2
    assert "--out is a .png or .jpg, not x.pdf" in other.stderr
