from __future__ import annotations

from pathlib import Path

import pytest

from ttd.errors import InputError
from ttd.training.config import SHIPPED, Config, read_config


def test_defaults_are_table_6() -> None:
    config = read_config()
    assert (config.optimiser.rate, config.optimiser.weight_decay) == (1e-4, 5e-5)
    assert (config.optimiser.batch, config.optimiser.epochs, config.optimiser.schedule) == (32, 1, "constant")
    assert (config.augment.shortest, config.augment.longest, config.augment.crop) == (320, 640, 448)
    assert (config.model.rank, config.choice.by, config.loss.negatives, config.loss.floor) == (10, "s_pixel", 0, -1)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_shipped_configs_open_with_their_command(name: str) -> None:
    read_config(name)
    head = (SHIPPED / f"{name}.toml").read_text("utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"--config {name}" in head
    assert "Time:" in head
    assert "Result:" in head


def test_the_paper_config_is_the_default_but_for_the_model() -> None:
    shipped, default = read_config("paper").to_dict(), Config().to_dict()
    differing = {(s, n) for s, values in shipped.items() for n in values if values[n] != default[s][n]}
    assert differing == {("model", "name"), ("data", "workers")}


def test_files_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('[optimiser]\nrate = 1\n[data]\nsources = ["a.tar", "b.tar"]\n', "utf-8")
    overrides = ["optimiser.batch=8", "model.name=clip-vit-b16", "choice.by = negatives", "data.keep=x=y"]
    config = read_config(path, overrides)
    assert (config.optimiser.rate, config.optimiser.batch, config.model.name) == (1.0, 8, "clip-vit-b16")
    assert (config.data.sources, config.choice.by, config.data.keep) == (("a.tar", "b.tar"), "negatives", "x=y")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.rate=1", "did you mean optimiser"),
        ("optimiser.rat=1", "did you mean rate"),
        ("optimiser.rate=fast", "must be a number"),
        ("optimiser.batch=1.5", "whole number"),
        ("optimiser.batch=true", "whole number"),
        ("run.deterministic=1", "true or false"),
        ("choice.by=luck", "s_pixel"),
        ("data.sources=[1]", "list of texts"),
        ("rate=1", "section.name=value"),
        ("optimiser.rate", "section.name=value"),
        ("optimiser.batch=0", "at least 1"),
        ("augment.shortest=900", "exceeds"),
        ("loss.floor=-0.5", "loss.floor"),
        ("augment.flip=2", "0..1"),
        ("data.tags=words.parquet", "need each other"),
        ("choice.by=given", "need each other"),
    ],
)
def test_wrong_values_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_config(None, [override])


def test_no_loss_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing would be trained"):
        read_config(None, ["loss.distill=0", "loss.tag=0"])
    with pytest.raises(InputError, match="paper"):
        read_config("papper")
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n", "utf-8")
    with pytest.raises(InputError, match="TOML"):
        read_config(broken)
