"""The page's encoder, one file of another package: it is found, trained, saved, merged and refused like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.installed import install, run_with

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-an-encoder.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)

TRAINED = """
from pathlib import Path
import pytest, torch
import ttd
from colour_encoder import ColourEncoder
from tests.data.samples import write_shards
from tests.training.conftest import tiny_config
from ttd.encoders.registry import load_encoder
from ttd.errors import ModelError
from ttd.training.export import merge
from ttd.training.trainer import train

write_shards(Path("shards"), [12])
Path("other").mkdir()
other = ColourEncoder()
torch.nn.init.constant_(other.backbone["see"].weight, 0.5)
other.save(Path("other"))
run = train(tiny_config("colours", "shards", "optimiser.steps=2", "optimiser.rate=0.1"), "run", quiet=True).folder
assert ttd.load("colours").encoder.kind == "colour"
pixels = torch.rand(1, 3, 16, 16)
adapted = load_encoder("colours", adapter=run)
assert not torch.allclose(adapted.encode_pixels(pixels), load_encoder("colours").encode_pixels(pixels), atol=1e-5)
merged = load_encoder(merge("colours", run, "merged"))
assert torch.allclose(merged.encode_pixels(pixels), adapted.encode_pixels(pixels), atol=1e-6)
with pytest.raises(ModelError, match="another base"):
    load_encoder("other", adapter=run)
with pytest.raises(ModelError, match="belongs to a colour model"):
    load_encoder("mini", adapter=run)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "colour_encoder", BLOCKS[0], "ttd.encoders", "colour")


@pytest.mark.slow
def test_the_pages_examples_run_and_its_adapters_are_ours(site: Path, tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    done = run_with(site, "from colour_encoder import ColourEncoder\n" + BLOCKS[1] + TRAINED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    # Where the package is not installed, its adapter is refused: no model is taken in its place.
    alone = run_with(tmp_path, "import ttd; ttd.load('mini', adapter='run')", tmp_path)
    assert "unknown kind of model 'colour'" in alone.stderr


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_takes_nothing_away(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "broken", "import no_such_module", "ttd.encoders", "broken")
    code = "import ttd; from ttd.encoders.families import find_family; ttd.load('mini'); find_family('broken')"
    done = run_with(site, code, tmp_path)
    assert "broken cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert "ModelError: unknown kind of model 'broken'" in done.stderr
