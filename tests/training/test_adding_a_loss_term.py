"""The page's loss term, one file of another package: trained, logged and named in the card like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ttd
from tests.installed import install, run_with
from ttd.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-loss-term.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)

TRAINED = """
import json
from pathlib import Path
import pytest, torch
from click.testing import CliRunner
from tests.data.samples import write_shards
from tests.tiny_models import write_tiny_clip
from tests.training.conftest import tiny_config
from ttd.cli import cli
from ttd.errors import InputError
from ttd.losses import LOSS_TERMS
from ttd.training.config import from_dict
from ttd.training.dataset import Steps
from ttd.training.logging import read_log
from ttd.training.objective import Objective
from ttd.training.trainer import train

assert LOSS_TERMS.names() == ("distill", "tag", "rank", "own_caption")
write_tiny_clip(Path("base"))
write_shards(Path("shards"), [8])
config = tiny_config("base", "shards", "optimiser.steps=2", "loss.own_caption=0.5")
assert config.to_dict()["loss"]["own_caption"] == 0.5
assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
for entry in (train(config, "run", quiet=True), read_log(Path("run")))[1]:
    assert entry["own_caption_weight"] == 0.5
    assert 0 < entry["own_caption"] < 1
    total = entry["distill"] + entry["tag"] + 0.5 * entry["own_caption"]
    assert abs(entry["loss"] - total) < 1e-5
card = Path("run/README.md").read_text("utf-8")
assert "loss.own_caption = 0.5" in card and "L_own_caption (times 0.5)" in card
train(tiny_config("base", "shards", "optimiser.steps=2"), "plain", quiet=True)
assert Path("run/adapter_model.safetensors").read_bytes() != Path("plain/adapter_model.safetensors").read_bytes()
with pytest.raises(InputError, match="at least 0"):
    tiny_config("base", "shards", "loss.own_caption=-1")
done = CliRunner().invoke(cli, ["train", "shards", "--model", "base", "--out", "x", "--dry-run",
                                "--set", "loss.own_caption=1", "--set", "augment.crop=64"], prog_name="ttd")
assert done.exit_code == 0, done.output
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "own_caption_loss", BLOCKS[0], "ttd.losses", "own_caption")


@pytest.mark.slow
def test_the_pages_examples_run(site: Path, tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    done = run_with(site, BLOCKS[1] + TRAINED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    # Where the package is not installed, the weight is not silently dropped.
    alone = run_with(tmp_path, BLOCKS[1], tmp_path)
    assert "InputError: unknown name loss.own_caption in the config" in alone.stderr


@pytest.mark.parametrize("name", ["floor", "tag", "Rank"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError):
        ttd.register_loss_term(ttd.LossTerm(name, lambda inputs: inputs.scores.sum(-1)))
