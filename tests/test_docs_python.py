import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ttd
from tests.colour_encoder import ColourEncoder

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("page", "number"), [("docs/python.md", 7), ("docs/models.md", 1), ("docs/refinement.md", 1), ("README.md", 1)]
)
def test_every_example_runs(page: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS.parent / page).read_text("utf-8"), re.S)
    assert len(blocks) == number
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    wanted = inspect.signature(ttd.load)

    def load(*arguments: Any, **options: Any) -> ttd.TTD:
        wanted.bind(*arguments, **options)
        return ttd.TTD(ColourEncoder())

    monkeypatch.setattr("ttd.model.load", load)
    exec("\n".join(blocks), {})


def test_every_function_of_the_table_is_where_it_says() -> None:
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| `(ttd/\S+)` \|$", (DOCS / "equations.md").read_text("utf-8"), re.M)
    assert len(rows) >= 15
    for names, file in rows:
        source = (DOCS.parent / "src" / file).read_text("utf-8")
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"^\s*(def|class) {name}\b|^{name} = ", source, re.M), (name, file)
