"""The report: numbers from an oracle, tables, images; and the command that trains, end to end in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import ttd
from experiments.report import GATE, gate, measure, rich_scenes, to_markdown, write_report
from experiments.train_mini.__main__ import train_mini
from ttd.scenes import Scenes
from ttd.scenes.nouns import WORDS
from ttd.scenes.scene import FILLER
from ttd.scenes.write import write_tagmask
from ttd.training import checkpoint


def test_the_tables_are_what_the_tasks_measure(tmp_path: Path) -> None:
    write_tagmask(Scenes("test"), 6, tmp_path)
    model = ttd.load("mini")
    results = measure(model, tmp_path, methods=("values",))
    text = to_markdown({"before": results, "after TTD": results}, "Six scenes.")
    assert text.count("| every noun |") == 4
    row = results["methods"]["values"]
    assert f"| values | {row['mIoU, words that are there']:.3f} |" in text
    assert row["s_pixel F1"] == results["tags"]["s_pixel"]["F1"]
    assert row["CaptionIoU"] == results["caption"]["all"]["CaptionIoU"]
    assert row["mIoU, words that are there"] > row["mIoU, all words"] > 0
    scenes = [Scenes("test")[number] for number in range(6)]
    embeddings = model.encode_text([scene.caption for scene in scenes])
    own = [int((embeddings @ model.encode(scene.image).views[0].features.pooled[0]).argmax()) for scene in scenes]
    assert results["clip"]["image to text"] == pytest.approx(np.mean([n == k for n, k in enumerate(own)]))
    json.dumps(results)


def test_gate_names_what_is_missed() -> None:
    good = dict.fromkeys(GATE, 1.0)
    bad = {**good, "AUC per word": 0.89}
    assert gate({"values": good, "sclip": bad}) == {"values": [], "sclip": ["AUC per word"]}


def test_rich_scenes_name_three_true_things_and_the_background() -> None:
    for scene in rich_scenes("test", 3):
        assert len(scene.true_words) >= 3
        assert scene.background in scene.true_words


@pytest.mark.slow
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
    state = checkpoint.load_last(run / "checkpoints")
    assert state is not None
    trained = state["model"]["visual_projection.weight"]
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
