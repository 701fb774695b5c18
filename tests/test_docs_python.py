import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ttd
from tests.colour_encoder import ColourEncoder

DOCS = Path(__file__).parents[1] / "docs"


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text("utf-8"), re.S)
    assert len(blocks) >= 5
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ttd.model.load", lambda name: ttd.TTD(ColourEncoder()))
    exec("\n".join(blocks), {})


def test_every_function_of_the_table_is_where_it_says() -> None:
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| `(ttd/\S+)` \|$", (DOCS / "equations.md").read_text("utf-8"), re.M)
    assert len(rows) >= 15
    for names, file in rows:
        source = (DOCS.parent / "src" / file).read_text("utf-8")
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"^\s*(def|class) {name}\b|^{name} = ", source, re.M), (name, file)
