"""The model in the package: a plain CLIPModel, small enough, and good enough to show the method on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, CLIPModel

import ttd
from tests.tolerance import assert_close, tower
from ttd.cli import cli
from ttd.encoders.registry import find_adapter
from ttd.model import TTD
from ttd.scenes import Scenes
from ttd.scenes.measure import caption_masks, encode_scenes, present_above_absent, segmentation, tag_selection
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


@pytest.mark.slow
def test_it_passes_the_gate_on_validation_scenes(mini: TTD) -> None:
    world = Scenes("validation")
    encoded = encode_scenes(mini.encoder, [world[i] for i in range(200)])
    with torch.inference_mode():
        assert segmentation(mini.encoder, encoded)["words that are there"] >= 0.45
        assert min(present_above_absent(mini.encoder, encoded).values()) >= 0.90
        tags = tag_selection(mini.encoder, encoded)
        captions = caption_masks(mini.encoder, encoded)
    assert tags["s_pixel"]["F1"] >= 0.85
    assert tags["s_pixel"]["F1"] > max(tags[score]["F1"] for score in ("s_image", "s_text", "s_seg"))
    for row in captions.values():
        assert row["CaptionIoU"] > row["whole image IoU"]


@pytest.fixture(scope="module")
def measured(mini: TTD) -> dict[str, dict[str, float]]:
    """What text alone cannot give, higher is better, on 200 validation scenes: before, and after each adapter."""
    world = Scenes("validation")
    scenes = [world[i] for i in range(200)]
    models = {"": mini, **{name: ttd.load("mini", adapter=name) for name in ("mini+ttd", "mini+negatives")}}
    found = {}
    with torch.inference_mode():
        for name, model in models.items():
            encoded = encode_scenes(model.encoder, scenes)
            tags = tag_selection(model.encoder, encoded, scores=("s_pixel",))["s_pixel"]
            captions = caption_masks(model.encoder, encoded)
            found[name] = {
                "mIoU": segmentation(model.encoder, encoded)["words that are there"],
                "CaptionIoU": captions["all"]["CaptionIoU"],
                "objects only": captions["objects only"]["CaptionIoU"],
                "present": 1 - tags["absent selected"],
                **present_above_absent(model.encoder, encoded),
            }
    return found


@pytest.mark.slow
def test_our_recipe_is_better_in_everything_that_text_alone_cannot_give(measured: dict[str, dict[str, float]]) -> None:
    before, after = measured[""], measured["mini+negatives"]
    assert [name for name in before if after[name] < before[name]] == []
    assert after["mIoU"] > before["mIoU"] + 0.05


@pytest.mark.slow
def test_the_papers_recipe_gains_in_maps_and_loses_captions_of_objects_only(
    measured: dict[str, dict[str, float]],
) -> None:
    before, after = measured[""], measured["mini+ttd"]
    assert after["mIoU"] > before["mIoU"]
    assert after["objects only"] < 0.75 * before["objects only"]
    assert after["per image"] < before["per image"]


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
