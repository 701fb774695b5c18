"""The page's method, one file of another package: listed, used, trained and named in the adapter like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.installed import install, run_with

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-method.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)

USED = """
import json
from pathlib import Path
from click.testing import CliRunner
from PIL import Image
from tests.data.samples import write_shards
from tests.tiny_models import write_tiny_clip
from tests.training.conftest import tiny_config
from ttd.cli import cli
from ttd.training.trainer import train

other = ttd.load("mini").heatmaps(image, ["dog", "grass"], ttd.Options(size=96, window=64, stride=32, flip=True))
assert abs(heat - other).max() > 0.1
Image.fromarray(image).save("a.png")
for arguments in (["tag", "a.png", "--caption", "a dog", "--method", "guided"], ["models"]):
    done = CliRunner().invoke(cli, arguments, prog_name="ttd")
    assert done.exit_code == 0, done.output
assert "guided" in done.output
write_tiny_clip(Path("base"))
write_shards(Path("shards"), [8])
run = train(tiny_config("base", "shards", "optimiser.steps=2", "model.method=guided"), "run", quiet=True).folder
assert json.loads((run / "ttd.json").read_text())["method"] == "guided"
assert ttd.load("base", adapter=run).encoder.method_name == "guided"
model.keep_features("cache")
model.segment(image, ["dog"])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "guided_method", BLOCKS[0], "ttd.methods", "guided")


@pytest.mark.slow
def test_the_pages_examples_run(site: Path, tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    done = run_with(site, BLOCKS[1] + USED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = run_with(tmp_path, "import ttd; ttd.load('base', adapter='run')", tmp_path)
    assert "unknown method 'guided'" in alone.stderr
