from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import invoke, one_sentence
from tests.extras import needs


@pytest.mark.parametrize(
    ("options", "rank", "said"),
    [
        (("--engine", "torchrun"), None, "--engine torchrun needs torchrun"),
        (("--engine", "local"), "1", "torchrun has started this, so it is not --engine local"),
        (("--engine", "ray"), "1", "torchrun has started this, so it is not --engine ray"),
        (("--ray-cpus", "2"), None, "--ray-cpus belongs to --engine ray"),
        (("--engine", "spark"), None, "'spark' is not one of"),
        (("--engine", "ray", "--ray-workers", "0"), None, "0 is not in the range"),
    ],
)
@pytest.mark.parametrize("command", [("prune",), ("data", "tag"), ("tag",), ("eval", "tagmask", "--data")])
def test_an_engine_that_does_not_fit_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    options: tuple[str, ...],
    rank: str | None,
    said: str,
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
    done = invoke(*command, tmp_path, "--model", "mini", "--out", tmp_path / "out", *options)
    assert said in one_sentence(done)
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("ray", "ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = invoke("prune", tmp_path, "--model", "mini", "--out", tmp_path / "out", "--engine", "ray")
    assert "there is no Ray cluster at 127.0.0.1:1" in one_sentence(done)


def test_a_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    done = invoke("prune", tmp_path, "--model", "mini", "--out", tmp_path / "out", "--engine", "ray")
    assert "--engine ray needs Ray: run `pip install -e '.[ray]'" in one_sentence(done)
