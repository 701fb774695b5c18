"""`ttd compare`: the table against the cells' own results, a second start, adapters that belong elsewhere."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

import ttd
from tests.cli.test_eval import command
from tests.evaluation import layouts
from tests.evaluation.oracle import Oracle
from tests.evaluation.tasks.test_referring import write_refer
from ttd.encoders.methods import find_method
from ttd.errors import OtherBaseError
from ttd.model import TTD


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """Models "a" and "b" that know other names of VOC's classes, adapters that change which; counts the questions."""
    titles = list(layouts.write(tmp_path / "voc", "voc20", count=5)[2])
    layouts.write(tmp_path / "context", "voc", count=3)
    asked = {"images": 0, "loaded": 0}

    def load(name: str, adapter: str | None = None, **options: Any) -> TTD:
        asked["loaded"] += 1
        if adapter == "of-a" and name != "a":
            raise OtherBaseError("the adapter of-a was trained on another base")
        turn = {"a": 1, "b": 2}[name] + (int(adapter[-1]) if adapter and adapter[-1].isdigit() else 0)
        oracle = Oracle(["background", *titles[turn % 4 :], *titles[: turn % 4]])
        oracle.method = options["method"] and find_method(options["method"])
        oracle.default_refinement = oracle.method.refine if oracle.method else "none"
        return TTD(oracle)

    segment = TTD.segment

    def counted(*args: Any, **options: Any) -> Any:
        asked["images"] += 1
        return segment(*args, **options)

    monkeypatch.setitem(ttd.__dict__, "load", load)
    monkeypatch.setattr(TTD, "segment", counted)
    return asked


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def miou(cell: Path) -> float:
    return 100 * float(json.loads((cell / "results.json").read_text())["numbers"]["mIoU"])


def test_seeds_become_a_mean_and_a_second_start_asks_nothing_again(models: dict[str, int], tmp_path: Path) -> None:
    line = ["compare", "--benchmark", f"voc20={tmp_path / 'voc'}", "--benchmark", f"voc={tmp_path / 'context'}"]
    line += ["--model", "a", "--adapter", "none", "--adapter", "run-{seed}", "--seeds", "0,1,2"]
    line += ["--protocol", "default", "--csv", "--latex", "--out", str(tmp_path / "out")]
    done = command(*line)
    assert done.exit_code == 0, done.output
    first, second = rows_of(tmp_path / "out")
    alone = miou(tmp_path / "out/voc20/a,none,own,default")
    seeds = [miou(tmp_path / f"out/voc20/a,run-{seed},own,default") for seed in range(3)]
    assert len(set(seeds)) > 1
    assert float(first["voc20 mIoU"]) == pytest.approx(alone)
    assert float(second["voc20 mIoU"]) == pytest.approx(statistics.mean(seeds))
    assert float(second["voc20 mIoU deviation"]) == pytest.approx(statistics.stdev(seeds))
    gain, low, high = (float(second[f"voc20 mIoU gain{end}"]) for end in ("", " low", " high"))
    assert gain == pytest.approx(statistics.mean(seeds) - alone)
    assert low <= gain <= high
    average = (float(second["voc20 mIoU"]) + float(second["voc mIoU"])) / 2
    assert float(second["Avg. mIoU"]) == pytest.approx(average)
    assert (first["model"], second["model"]) == ("a", "a + run-{seed} (x3)")
    assert "Avg. mIoU" in (tmp_path / "out/table.tex").read_text()
    asked = models["images"]
    again = command(*line)
    assert again.exit_code == 0
    assert models["images"] == asked
    assert again.stdout == done.stdout


def test_an_adapter_of_another_model_is_left_out_and_named(models: dict[str, int], tmp_path: Path) -> None:
    line = ["compare", "--benchmark", f"voc20={tmp_path / 'voc'}", "--model", "a", "--model", "b"]
    done = command(*line, "--adapter", "of-a", "--protocol", "default", "--csv", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert [row["model"] for row in rows_of(tmp_path / "out")] == ["a + of-a"]
    assert "left out: the adapter of-a was trained on another base" in done.stderr


def test_a_cell_is_a_run_of_ttd_eval(models: dict[str, int], tmp_path: Path) -> None:
    voc = ["--model", "b", "--protocol", "default"]
    done = command("compare", "--benchmark", f"voc20={tmp_path / 'voc'}", *voc, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    cell = tmp_path / "out/voc20/b,none,own,default"
    asked = models["images"]
    alone = command("eval", "voc20", "--data", tmp_path / "voc", *voc, "--images", 0, "--out", cell)
    assert alone.exit_code == 0, alone.output
    assert models["images"] == asked
    assert command("report", cell, "--csv").exit_code == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--benchmark", "voc20"], "is not NAME=ROOT"),
        (["--benchmark", "nothing=x"], "is not NAME=ROOT"),
        (["--benchmark", "voc20={voc}", "--benchmark", "voc20={voc}"], "named twice"),
        (["--benchmark", "voc20={voc}", "--seeds", "0,1"], "go together"),
        (["--benchmark", "voc20={voc}", "--adapter", "a-{seed}"], "go together"),
        (["--benchmark", "voc20={voc}/absent"], "is not a folder"),
        (["--benchmark", "voc20={voc}:x"], "is not a folder"),
        (["--benchmark", "voc20:val={voc}"], "leave --split"),
        (["--benchmark", "voc20={voc}", "--pamr-grid", "half"], "quarter"),
    ],
)
def test_wrong_use_ends_before_a_model_is_loaded(
    more: list[str], sentence: str, models: dict[str, int], tmp_path: Path
) -> None:
    line = [part.replace("{voc}", str(tmp_path / "voc")) for part in more]
    done = command("compare", *line, "--model", "a", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert sentence in done.stderr
    assert models["loaded"] == 0


def test_splits_are_columns_of_their_own(models: dict[str, int], tmp_path: Path) -> None:
    write_refer(tmp_path / "refer")
    root = tmp_path / "refer"
    done = command(
        "compare", "--benchmark", f"refcoco:val={root}", "--benchmark", f"refcoco:testA={root}", "--model", "a",
        "--protocol", "default", "--csv", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {"refcoco:val mIoU", "refcoco:testA mIoU", "Avg. mIoU"} <= set(rows_of(tmp_path / "out")[0])


SMALL = ("--size", 48, "--window", "none", "--scales", 1, "--no-flip", "--templates", "none")


def test_without_a_protocol_each_method_follows_its_own(models: dict[str, int], tmp_path: Path) -> None:
    """As `ttd eval` does: two rows by their authors' settings, one by the paper's."""
    methods = [part for name in ("sclip", "naclip", "values") for part in ("--method", name)]
    line = ["compare", "--benchmark", f"voc20={tmp_path / 'voc'}", "--model", "a", *methods, *SMALL, "--refine", "none"]
    done = command(*line, "--csv", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    own = [(row["method"], row["protocol"]) for row in rows_of(tmp_path / "out")]
    assert own == [("sclip", "sclip"), ("naclip", "naclip"), ("values", "paper")]
    cell = tmp_path / "out/voc20/a,none,naclip,naclip"
    alone = ["eval", "voc20", "--data", tmp_path / "voc", "--model", "a", "--method", "naclip", *SMALL]
    asked = models["images"]
    assert command(*alone, "--refine", "none", "--images", 0, "--out", cell).exit_code == 0
    assert models["images"] == asked  # the same settings: the cell is complete


def test_a_missing_refinement_ends_it_before_a_row_is_measured(
    models: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second row's DenseCRF is asked for before the first row is measured."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    line = ["compare", "--benchmark", f"voc20={tmp_path / 'voc'}", "--model", "a", "--method", "values", *SMALL]
    done = command(*line, "--method", "maskclip", "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "[crf]" in done.stderr
    assert "--refine none" in done.stderr
    assert (models["loaded"], models["images"]) == (0, 0)


def test_options_go_to_the_benchmarks_that_take_them(models: dict[str, int], tmp_path: Path) -> None:
    write_refer(tmp_path / "refer")
    line = ["compare", "--benchmark", f"voc20={tmp_path / 'voc'}", "--benchmark", f"refcoco:val={tmp_path / 'refer'}"]
    line += ["--model", "a", "--protocol", "default", "--size", 48, "--refine", "pamr"]
    done = command(*line, "--area-threshold", 0.2, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    for name, is_cut in (("voc20", True), ("refcoco_val", False)):
        (found,) = (tmp_path / "out").glob(f"{name.replace('_', '*')}/a,none,own,default/results.json")
        options = json.loads(found.read_text())["settings"]["options"]["masks"]
        assert (options["size"], options["refine"], options["area_threshold"]) == (48, "pamr", 0.2 if is_cut else None)
    done = command(*line[:1], *line[3:], "--area-threshold", 0.2, "--out", tmp_path / "other")
    assert done.exit_code == 2
    assert "--area-threshold does not apply to these benchmarks" in done.stderr
