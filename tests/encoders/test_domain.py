"""Whether an image looks like those that a small model learned from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ttd
from ttd.encoders.domain import SIDE, Domain, read_domain, statistics, write_domain
from ttd.errors import ModelError
from ttd.scenes import Scenes
from ttd.training.export import write_model


@pytest.fixture(scope="module")
def model() -> ttd.TTD:
    return ttd.load("mini")


def changes(image: Image.Image) -> list[Image.Image]:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return [image, Image.open(stream), image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)]


def test_scenes_are_known_in_every_size_and_format(model: ttd.TTD) -> None:
    scenes = Scenes("test")
    found = [model.notice(one) for number in range(40) for one in changes(Image.fromarray(scenes[number].image))]
    assert sum(notice is not None for notice in found) <= 0.02 * len(found) + 1


def test_photographs_are_not(model: ttd.TTD, shared: Path) -> None:
    photos = sorted((shared / "data/coco/images/val2017").glob("*.jpg"))[:40]
    found = [model.notice(path) for path in photos]
    assert sum(notice is None for notice in found) <= 0.02 * len(found) + 1
    said = next(notice for notice in found if notice)
    assert "drawn scenes" in said
    assert "--model clip-vit-b16" in said


def test_the_statistics_are_those_of_their_definition() -> None:
    """By another way: sorted differences, blocks averaged one by one."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    bright = pixels.astype(float) @ [0.299, 0.587, 0.114] / 255
    half = np.array([[bright[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(64)] for i in range(64)])
    expected = []
    for grid in (bright, half):
        steps = [abs(grid[i + 1, j] - grid[i, j]) for i in range(len(grid) - 1) for j in range(len(grid))]
        steps += [abs(grid[i, j + 1] - grid[i, j]) for i in range(len(grid)) for j in range(len(grid) - 1)]
        expected += [np.log(np.percentile(steps, q) + 1e-3) for q in (10, 25, 50, 75, 90, 98)]
    np.testing.assert_allclose(statistics(Image.fromarray(pixels))[:12], expected, rtol=1e-4)


def test_a_model_on_disk_keeps_what_it_learned_from(model: ttd.TTD, tmp_path: Path) -> None:
    write_model(model.encoder, tmp_path / "model")
    assert ttd.load(tmp_path / "model").encoder.domain == model.encoder.domain
    assert model.encoder.with_method("maskclip").domain == model.encoder.domain


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rule: {**rule, "weights": rule["weights"][1:]}, "weights where"),
        (lambda rule: {**rule, "weights": [*rule["weights"][1:], "a"]}, "weights"),
        (lambda rule: {**rule, "bias": None}, "bias"),
        (lambda rule: {name: value for name, value in rule.items() if name != "remedy"}, "remedy"),
        (lambda rule: [rule], "domain.json"),
    ],
)
def test_a_damaged_rule_is_a_sentence(model: ttd.TTD, tmp_path: Path, change: object, sentence: str) -> None:
    path = tmp_path / "domain.json"
    domain = model.encoder.domain
    assert isinstance(domain, Domain)
    write_domain(path, domain)
    assert read_domain(path) == domain
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(ModelError, match=sentence):
        read_domain(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"domain\.json"):
        read_domain(path)
