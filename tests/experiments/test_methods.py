"""The figure of all methods: a row for each image, a column for each method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.methods import SHOWN, SIDE, figure, methods, random_backbones, to_markdown
from tests.tiny_models import tiny_clip
from ttd.encoders.methods import find_method
from ttd.model import TTD


def test_a_column_for_each_image_and_a_row_for_each_method() -> None:
    models = {name: TTD(tiny_clip(method=name)) for name in ("maskclip", "gem")}
    colours = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    columns = [(Image.fromarray(colours[0]), ["dog", "sky"]), (Image.fromarray(colours[1, :32]), ["cat", "sea"])]
    page = figure(models, columns)
    assert page.width >= 2 * SIDE
    assert page.height >= 3 * SIDE
    assert len(np.unique(np.asarray(page).reshape(-1, 3), axis=0)) > 100


def test_random_backbones_are_read_as_any_others(tmp_path: Path) -> None:
    method = find_method("trident").with_second_backbone(random_backbones(tmp_path))
    model = TTD(tiny_clip().with_method(method))
    found = model.segment(np.zeros((64, 80, 3), np.uint8), ["dog", "sky"])
    assert found.label_map.shape == (64, 80)


def test_a_cell_of_several_seeds_is_their_mean_and_deviation() -> None:
    alone, seeds = [dict.fromkeys(SHOWN, 0.5)], [dict.fromkeys(SHOWN, value) for value in (0.5, 0.6, 0.7)]
    row = to_markdown({"gem": [alone, seeds]}, ["none", "a,b,c"]).splitlines()[-1]
    assert row == "| gem |" + " 0.500 / 0.600 ± 0.100 |" * len(SHOWN)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--photo", "x.png", " , ", "--out", "x.jpg"], "--photo x.png names no tags"),
        (["--photo", "x.png", "dog", "--out", "x.gif"], "--out is a .png or .jpg, not x.gif"),
        (["--photo", "x.png", "dog", "--out", "x.jpg"], "x.png"),
        ([], "nothing is asked for"),
        (["--adapter", "a,b", "--out", "x.jpg"], "the figure shows one adapter"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    asked: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        methods.main(asked)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
