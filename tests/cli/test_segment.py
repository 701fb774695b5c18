"""`ttd heatmap`, `ttd mask`, `ttd segment` on one image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.conftest import Run, one_sentence
from tests.cli.fake_model import FakeModel


def test_heatmap_says_where_the_peak_is(run: Run, photo: Path) -> None:
    result = run("heatmap", photo, "dog", "traffic light")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split() == ["dog", "0,", "0", "33.3%"]
    record = json.loads(run("heatmap", photo, "dog", "traffic light", "--json").stdout)
    assert record["maps"][1] == {"text": "traffic light", "peak": [0, 0], "half": 0.3333}
    assert (record["height"], record["width"]) == (40, 60)


def test_heatmap_draws_all_maps_and_each(run: Run, photo: Path, tmp_path: Path) -> None:
    result = run("heatmap", photo, "dog", "sky", "--out", tmp_path / "out")
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["photo-map1.png", "photo-map2.png", "photo.png"]


def test_mask_is_written_as_data(run: Run, photo: Path, tmp_path: Path) -> None:
    result = run("mask", photo, "a dark wall", "--out", tmp_path / "m.png")
    assert "33.3% of the image, x 0 to 19, y 0 to 39" in result.stdout
    mask = np.asarray(Image.open(tmp_path / "m-mask.png"))
    assert mask.shape == (40, 60)
    assert (mask[:, :20] == 255).all()
    assert (mask[:, 20:] == 0).all()
    record = json.loads(run("mask", photo, "a dark wall", "--json", "--threshold", "0.0").stdout)
    assert (record["share"], record["box"]) == (1.0, [0, 0, 59, 39])


def test_an_empty_mask_is_nowhere(run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (5, 5), "white").save(tmp_path / "white.png")
    assert "nowhere" in run("mask", tmp_path / "white.png", "a dog").stdout
    assert json.loads(run("mask", tmp_path / "white.png", "a dog", "--json").stdout)["box"] is None


def test_segment_writes_an_indexed_label_map(run: Run, photo: Path, tmp_path: Path) -> None:
    result = run("segment", photo, "--tags", "wall", "sky", "--out", tmp_path / "s.png")
    assert result.exit_code == 0
    labels = Image.open(tmp_path / "s-labels.png")
    assert labels.mode == "P"
    expected = np.zeros((40, 60), int)
    expected[:, :20] = 1
    np.testing.assert_array_equal(np.asarray(labels), expected)
    assert Image.open(tmp_path / "s.png").width > 60


def test_segment_takes_tags_in_every_form(run: Run, photo: Path) -> None:
    forms: list[list[str]] = [
        [str(photo), "--tags", "a", "b c", "d"],
        [str(photo), "--tags", "a,b c,d"],
        [str(photo), "--tags", "a", "--tags", "b c", "--tags", "d"],
        ["--tags", "a", "b c", "d", "--", str(photo)],
        ["--tags", "a", "b c", "d", "--model", "mini", str(photo)],
        [str(photo), "--tags=a", "--tags", "b c,", "d"],
    ]
    for form in forms:
        result = run("segment", *form, "--json") if "--" not in form else run("segment", "--json", *form)
        assert json.loads(result.stdout)["names"] == ["background", "a", "b c", "d"], form


def test_a_tag_may_begin_with_a_dash(run: Run, photo: Path) -> None:
    result = run("segment", photo, "--tags=-x", "--json")
    assert json.loads(result.stdout)["names"] == ["background", "-x"]


def test_what_is_missing_is_named(run: Run, photo: Path, model: FakeModel) -> None:
    assert "no classes" in one_sentence(run("segment", photo))
    assert "--tags needs at least one word" in one_sentence(run("segment", photo, "--tags"))
    assert "--tags needs at least one word" in one_sentence(run("segment", photo, "--tags", "--json"))
    assert "no classes" in one_sentence(run("segment", photo, "--tags", " , ,"))
    assert "no text" in one_sentence(run("heatmap", photo))
    assert "no text" in one_sentence(run("heatmap", photo, " "))
    assert "no caption" in one_sentence(run("mask", photo))
    assert model.calls == []


def test_no_background_is_an_answer(run: Run, photo: Path, model: FakeModel) -> None:
    run("segment", photo, "--tags", "a", "--background", "none")
    run("segment", photo, "--tags", "a", "--background", "0.4", "--refine", "pamr")
    assert [call[2] for call in model.calls if call[0] == "segment"] == [
        {"background": False},
        {"background": 0.4, "refine": "pamr"},
    ]
    assert "--background" in one_sentence(run("segment", photo, "--tags", "a", "--background", "2"))
