"""The model in the package: a plain CLIPModel, small enough, and good enough to show the method on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, CLIPModel

import ttd
from tests.tolerance import assert_close, tower
from ttd.cli import cli
from ttd.encoders.registry import find_adapter
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.runner import measure_all
from ttd.evaluation.tasks.tag_tables import Cut
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes import BACKGROUNDS, NOUNS, Scenes
from ttd.scenes.write import write_tagmask
from ttd.training.config import read_config

ASSETS = Path(ttd.__file__).parent / "assets"
MINI = ASSETS / "mini"


@pytest.fixture(scope="module")
def mini() -> TTD:
    return ttd.load("mini")


def test_package_carries_at_most_30_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 30e6


def test_folder_is_a_plain_clip_model(mini: TTD) -> None:
    model = CLIPModel.from_pretrained(MINI, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    ids = tokenizer("a photo of a cat, spider's web")["input_ids"]
    assert ids == [49406, 320, 1125, 539, 320, 2368, 267, 7622, 568, 4601, 49407]
    with torch.inference_mode():
        plain = model.get_text_features(**tokenizer(["a cute dog"], return_tensors="pt")).pooler_output
    ours = mini.encode_text(["a cute dog"])
    text = model.config.text_config
    terms = tower(blocks=text.num_hidden_layers, width=text.hidden_size, hidden=text.intermediate_size, tokens=77)
    assert_close(ours, torch.nn.functional.normalize(plain, dim=-1), terms)
    assert mini.encoder.fingerprint() == json.loads((MINI / "ttd.json").read_text("utf-8"))["fingerprint"]


CUT = Cut("norm", 0.5)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 validation scenes as a set."""
    folder = tmp_path_factory.mktemp("scenes")
    write_tagmask(Scenes("validation"), 200, folder)
    return folder


def measured(model: TTD, folder: Path, scores: Sequence[str] = ("s_pixel",)) -> dict[str, float]:
    """Tags, AUC over the world's nouns, captions' masks by `CUT`, mIoU among the words that are there."""
    data = replace(read_tagmask(folder), vocabulary=NOUNS)
    found = measure_all(model, TagMask(data, Options(), Options(), scores=scores, shuffled=False, cuts=[CUT]))
    of_objects = {row.sample.id for row in data.rows if not row.true & set(BACKGROUNDS)}
    objects = found.result(lambda record: record["id"] in of_objects)
    known = open_benchmark("folder", folder, Choices("default", known_classes=True), model.encoder)
    return {
        **found.result().numbers,
        "CaptionIoU": found.result().rows["cuts"][0]["CaptionIoU"],
        "objects only": objects.rows["cuts"][0]["CaptionIoU"],
        "whole image, objects only": objects.numbers["whole image IoU"],
        "mIoU": measure_all(model, known).result().numbers["mIoU"],
    }


@pytest.fixture(scope="module")
def before(mini: TTD, scenes: Path) -> dict[str, float]:
    return measured(mini, scenes, ("s_pixel", "s_image", "s_text", "s_seg"))


@pytest.mark.slow
def test_it_passes_the_gate_on_validation_scenes(before: dict[str, float]) -> None:
    assert before["mIoU"] >= 0.45
    assert min(before["AUC per image"], before["AUC per word"]) >= 0.90
    assert before["s_pixel: F1"] >= 0.85
    assert before["s_pixel: F1"] > max(before[f"{score}: F1"] for score in ("s_image", "s_text", "s_seg"))
    assert before["CaptionIoU"] > before["whole image IoU"]
    assert before["objects only"] > before["whole image, objects only"]


WANTED = {"mIoU": 1, "CaptionIoU": 1, "objects only": 1, "s_pixel: absent selected": -1}
WANTED |= {"AUC per image": 1, "AUC per word": 1}
"""What text alone cannot give, and whether more or less of it is better."""


@pytest.mark.slow
def test_our_recipe_is_better_in_everything_that_text_alone_cannot_give(before: dict[str, float], scenes: Path) -> None:
    after = measured(ttd.load("mini", adapter="mini+negatives"), scenes)
    assert [name for name, sign in WANTED.items() if sign * (after[name] - before[name]) < 0] == []
    assert after["mIoU"] > before["mIoU"] + 0.05


@pytest.mark.slow
def test_the_papers_recipe_gains_in_maps_and_loses_little(before: dict[str, float], scenes: Path) -> None:
    after = measured(ttd.load("mini", adapter="mini+ttd"), scenes)
    assert after["mIoU"] > before["mIoU"] + 0.03
    assert after["CaptionIoU"] > before["CaptionIoU"] + 0.05
    assert after["objects only"] > before["objects only"] - 0.05
    assert min(after[name] - before[name] for name in ("AUC per image", "AUC per word")) > -0.01


@pytest.mark.parametrize(("adapter", "config"), [("mini+ttd", "scenes-paper"), ("mini+negatives", "scenes-negatives")])
def test_an_adapter_is_what_its_config_trains(adapter: str, config: str, tmp_path: Path) -> None:
    """The card has the recipe it was trained by: the shipped config's, but for data, seed and how the run went."""
    card = (find_adapter(adapter) / "README.md").read_text("utf-8")
    (tmp_path / "trained.toml").write_text(card.split("```toml")[1].split("```")[0], "utf-8")
    trained = read_config(tmp_path / "trained.toml").to_dict()
    shipped = read_config(config).to_dict()
    assert trained["model"].pop("method") == "values"
    shipped["model"].pop("method")
    for section in ("model", "augment", "choice", "loss", "optimiser"):
        assert trained[section] == shipped[section]
    assert ("This is not the paper's recipe" in card) == (adapter == "mini+negatives")
    assert "Trained by `python -m experiments.prove`." in card


def test_demo_is_right_on_five_held_out_scenes(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    scenes = json.loads(result.stdout)["scenes"]
    assert len(scenes) == 5
    for scene in scenes:
        there = [word["score"] for word in scene["words"] if word["truth"] == "there"]
        absent = [word["score"] for word in scene["words"] if word["truth"] == "not there"]
        assert min(there) > max(absent), scene["caption"]
        assert scene["caption_iou"] > scene["whole_iou"], scene["caption"]


def test_words_outside_its_world_are_named(mini: TTD) -> None:
    scene = Scenes("test")[0]
    tagging = mini.tag(scene.image, "a drum and a submarine in summer")
    assert tagging.unknown == ("submarine",)
