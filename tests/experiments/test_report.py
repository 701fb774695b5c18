"""The report: numbers from an oracle, tables, images; and the command that trains, end to end in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import ttd
from experiments.report import GATE, gate, measure, rich_scenes, to_markdown, write_report
from experiments.train_mini.__main__ import train_mini
from tests.scenes.oracle import Oracle
from ttd.errors import InputError
from ttd.scenes import Scenes
from ttd.scenes.captions import FILLER
from ttd.scenes.nouns import WORDS


@pytest.mark.slow
def test_oracle_passes_the_gate_and_fills_the_tables() -> None:
    scenes = [Scenes("test")[i] for i in range(256)]
    singles = [Scenes("test", objects=(1, 1))[i] for i in range(256)]
    results = measure(Oracle([*scenes, *singles], stride=16), "test", 256)
    row = results["methods"]["oracle"]
    assert row["AUC per image"] > 0.98  # an object smaller than the oracle's cells may be overlooked
    assert row["s_pixel mAP"] > 0.98
    text = to_markdown({"before": results, "after TTD": results}, "An oracle.")
    assert text.count("| every noun |") == 4
    assert f"| oracle | {row['mIoU, words that are there']:.3f} |" in text
    assert "nan" not in text
    json.dumps(results)


def test_gate_names_what_is_missed() -> None:
    good = dict.fromkeys(GATE, 1.0)
    bad = {**good, "AUC per word": 0.89}
    assert gate({"values": good, "sclip": bad}) == {"values": [], "sclip": ["AUC per word"]}


def test_too_few_scenes_are_refused() -> None:
    with pytest.raises(InputError, match="256"):
        measure(Oracle([]), "test", 10)


def test_rich_scenes_name_three_true_things_and_the_background() -> None:
    for scene in rich_scenes("test", 3):
        assert len(scene.true_words) >= 3
        assert scene.background in scene.true_words


def test_brief_training_gives_a_model_that_loads_and_reports(tmp_path: Path) -> None:
    run = tmp_path / "run"
    call = ["--brief", "--out", str(run), "--threads", "1"]
    assert CliRunner().invoke(train_mini, call, catch_exceptions=False).exit_code == 0
    again = CliRunner().invoke(train_mini, call)
    assert again.exit_code == 2
    assert "is finished: choose another --out or remove it" in again.stderr
    model = ttd.load(str(run / "model"))
    assert model.encoder.vocabulary == frozenset(WORDS) | FILLER
    assert model.encoder.image_size == 128
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["model"]["visual_projection.weight"]
    assert torch.equal(model.encoder.backbone.visual_projection.weight, trained.half().float())
    assert "64 images" in (run / "model" / "README.md").read_text("utf-8")
    columns = {"before": json.loads(json.dumps(_row()))}
    write_report(columns, {"before": model}, "A model of four steps.", tmp_path / "report", "test")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.json", "report.md", "figure1-0.png", "figure2-3.png"} <= names
    assert Image.open(tmp_path / "report" / "figure1-0.png").width > 300


def _row() -> dict[str, dict[str, dict[str, float]]]:
    numbers = {"x": 0.5}
    methods = {"values": dict.fromkeys(GATE, 0.5)}
    names = ("tags", "tags, images shuffled", "caption")
    return {"clip": numbers, **{name: {"row": numbers} for name in names}, "methods": methods}
