"""The command line with a small random CLIP from a folder: the real way from file to result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import ttd
from tests.cli.conftest import one_sentence
from tests.tolerance import (
    COSINES,
    assert_close,
    assert_same_decisions,
    calibrated_scale,
    float_tolerance,
    label_margin,
    map_scale,
)
from ttd.cli import cli
from ttd.inference.resizing import resize


@pytest.fixture(scope="module")
def tiny(clip_folder: Path) -> Path:
    return clip_folder


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Three images of different shapes with captions beside them."""
    folder = tmp_path / "noise"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape in (("a", (40, 60, 3)), ("b", (60, 40, 3)), ("c", (40, 60, 3))):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a dog near the {name} tree")
    return folder


def ask(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.slow
def test_one_and_many_and_python_agree(tiny: Path, noise: Path, tmp_path: Path) -> None:
    many = [json.loads(line) for line in ask("tag", noise, "--model", tiny, "--json").stdout.splitlines()]
    assert [record["id"] for record in many] == ["a.png", "b.png", "c.png"]
    model = ttd.load(str(tiny))
    for record in many:
        image = noise / record["id"]
        caption = image.with_suffix(".txt").read_text()
        one = json.loads(ask("tag", image, caption, "--model", tiny, "--json").stdout)
        out = tmp_path / f"{image.stem}.png"
        drawn = json.loads(ask("tag", image, caption, "--model", tiny, "--json", "--out", out).stdout)
        expected = model.tag(image, caption)
        for found in (record, one, drawn):
            assert found["selected"] == expected.selected
            scores = [word["score"] for word in found["words"]]
            assert_close(scores, [word.score for word in expected.words], COSINES, scale=1)
        assert len(drawn["files"]) == 3


def test_maps_agree_with_python(tiny: Path, noise: Path, tmp_path: Path) -> None:
    image, model = noise / "a.png", ttd.load(str(tiny))
    base = ("--model", tiny, "--json", "--out", tmp_path)
    assert ask("segment", image, "--tags", "dog", "tree", "sky", *base).exit_code == 0
    labels = np.asarray(Image.open(tmp_path / "a-labels.png"))
    names = ["dog", "tree", "sky"]
    expected, sim = model.segment(image, names), model.similarity(image, names)
    margin = label_margin(resize(model.encoder.calibration(sim), labels.shape), expected.background)
    rounding = float_tolerance(torch.float32, COSINES, scale=calibrated_scale(model.encoder))
    assert_same_decisions(labels, expected.label_map, margin, rounding)
    assert ask("mask", image, "a dog", *base, "--threshold", "0.3").exit_code == 0
    mask = np.asarray(Image.open(tmp_path / "a-mask.png")) == 255
    margin = model.caption_map(image, "a dog", scale="calibrated") - 0.3
    assert_same_decisions(mask, model.caption_mask(image, "a dog", threshold=0.3), margin, rounding)
    record = json.loads(ask("heatmap", image, "dog", "tree", *base).stdout)
    heat = model.heatmaps(image, ["dog", "tree"])[1]
    rounding = float_tolerance(torch.float32, COSINES, scale=map_scale(model.similarity(image, ["dog", "tree"])))
    column, row = record["maps"][1]["peak"]
    assert heat[row, column] >= heat.max() - 2 * rounding
    assert record["maps"][1]["half"] == pytest.approx(float((heat > 0.5).mean()), abs=1e-4)


def test_segment_without_background(tiny: Path, noise: Path) -> None:
    result = ask("segment", noise / "a.png", "--tags", "a", "b", "--background", "none", "--model", tiny, "--json")
    record = json.loads(result.stdout)
    assert record["names"] == ["a", "b"]
    assert record["background"] is None


def test_models_presets_and_adapters_that_do_not_exist(tiny: Path, noise: Path, tmp_path: Path) -> None:
    image = noise / "a.png"
    (tmp_path / "adapter").mkdir()
    assert "clip-vit-b61" in one_sentence(ask("tag", image, "a dog", "--model", "clip-vit-b61"))
    assert "nothing" in one_sentence(ask("tag", image, "a dog", "--model", tiny, "--protocol", "nothing"))
    assert "nothing" in one_sentence(ask("tag", image, "a dog", "--model", tiny, "--method", "nothing"))
    assert "adapter" in one_sentence(ask("tag", image, "a dog", "--model", tiny, "--adapter", tmp_path / "adapter"))
    assert "nothing" in one_sentence(ask("tag", image, "a dog", "--model", tiny, "--device", "nothing"))


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_mps_where_there_is_none(tiny: Path, noise: Path) -> None:
    answer = ask("tag", noise / "a.png", "a dog", "--model", tiny, "--device", "mps")
    assert "no device mps here" in one_sentence(answer)


def test_a_wrong_option_ends_a_run_over_many(tiny: Path, noise: Path) -> None:
    assert "nothing" in one_sentence(ask("tag", noise, "--model", tiny, "--protocol", "nothing"))


def test_the_demo_compares_with_the_truth(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = ask("demo", "--model", tiny, "--out", out, "--scenes", "2")
    assert result.exit_code == 0
    report = json.loads((out / "demo.json").read_text("utf-8"))
    assert len(report["scenes"]) == 2
    for scene in report["scenes"]:
        truths = [word["truth"] for word in scene["words"]]
        assert truths.count("there") >= 2
        assert "not there" in truths
        assert f'scene {scene["scene"]}: "{scene["caption"]}"' in result.stdout
        assert Image.open(out / scene["image"]).width > 600
        assert 0 <= scene["caption_iou"] <= 1
    mean = sum(scene["whole_iou"] for scene in report["scenes"]) / 2
    assert report["whole_iou"] == pytest.approx(mean, abs=1e-3)
    page = (out / "demo.md").read_text("utf-8")
    assert page.count("![scene") == 2
    again = json.loads(ask("demo", "--model", tiny, "--scenes", "2", "--json").stdout)
    assert again["caption_iou"] == report["caption_iou"]
    assert again["scenes"][0]["image"] is None
