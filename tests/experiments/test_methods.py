"""The figure of all methods: a row for each image, a column for each method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.methods import SIDE, figure, methods
from tests.tiny_models import tiny_clip
from ttd.model import TTD


def test_a_row_for_each_image_and_a_column_for_each_method() -> None:
    models = {name: TTD(tiny_clip(method=name)) for name in ("maskclip", "gem")}
    colours = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    rows = [(Image.fromarray(colours[0]), ["dog", "sky"]), (Image.fromarray(colours[1, :32]), ["cat", "sea"])]
    page = figure(models, rows)
    assert page.width >= 3 * SIDE
    assert page.height > SIDE + SIDE // 2
    drawn = np.asarray(page).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 100


def test_photos_need_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        methods.main(["--photos", str(tmp_path), "--out", str(tmp_path / "x.png")])
    assert ended.value.code == 2
    assert "--photos needs --tags" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
