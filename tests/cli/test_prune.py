from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import invoke as run
from tests.cli.conftest import one_sentence
from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import write_colour_shards

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five shards of eight pairs, every fourth caption names a wrong colour; one image is broken."""
    write_colour_shards(tmp_path / "cc", 8, lambda number: number % 4 == 3)
    return tmp_path / "cc"


@pytest.mark.usefixtures("colour_model")
def test_a_dry_run_measures_and_writes_nothing(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run("prune", shards, "--model", "any", "--out", out, "--dry-run", "--batch", 4, "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["pairs"], found["files"], found["processes"]) == (40, 5, 1)
    assert found["whole_seconds"] == pytest.approx(40 / found["pairs_per_second"])
    said = run("prune", shards, "--model", "any", "--out", out, "--dry-run")
    assert [line.split(":")[0] for line in said.stdout.splitlines()] == ["data", "rate", "time", "disk"]
    assert not out.exists()


@pytest.mark.usefixtures("colour_model")
def test_a_limit_takes_the_first_pairs_into_a_folder_of_their_own(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("prune", shards, "--model", "any", "--out", out, "--k", 0, "--limit", 10).exit_code == 0
    assert len(list((out / "scores").rglob("*.parquet"))) == 2
    assert sum(len(pq.read_table(path)) for path in (out / "scores").rglob("*.parquet")) == 10
    refused = run("prune", shards, "--model", "any", "--out", out)
    assert "limit" in one_sentence(refused)


@pytest.mark.usefixtures("colour_model")
def test_wrong_pairs_go_and_the_damage_is_told(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("prune", shards, "--model", "any", "--out", out, "--k", "0", "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert told["pairs"] == 39
    kept = pq.read_table(out / "keep.parquet")
    assert told["kept"] == len(kept) > 0
    assert {int(key) % 4 for key in kept["key"].to_pylist()}.isdisjoint({3})
    assert "000000013: broken image" in result.stderr
    damage = json.loads((out / "damage.json").read_text())
    assert [(s["shard"], s["key"]) for s in damage["samples"]] == [("cc/00001.tar", "000000013")]
    record = json.loads((out / "prune.json").read_text())
    assert record["settings"]["size"] == 32
    assert record["kept"] == told["kept"]
    assert (out / "histogram.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("colour_model")
def test_another_k_cuts_anew_without_scoring(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    few = json.loads(run("prune", shards, "--model", "x", "--out", out, "--k", "0.2", "--json").stdout)
    monkeypatch.setattr(ColourModelEncoder, "encode_image", lambda *_: pytest.fail("scored again"))
    all_of_them = json.loads(run("prune", shards, "--model", "x", "--out", out, "--k", "-9", "--json").stdout)
    assert few["kept"] < all_of_them["kept"] == 39
    assert "size was 32, now 48" in one_sentence(run("prune", shards, "--model", "x", "--out", out, "--size", 48))


@pytest.mark.usefixtures("colour_model")
def test_mistakes_are_answered_in_a_sentence(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        ((tmp_path / "none", "--model", "x", "--out", out), "does not exist"),
        ((shards, "--out", out), "--model"),
        ((shards, "--model", "x", "--out", out, "--max-bad-samples", "0"), "more than 0.0% of the 40 pairs"),
        ((shards, "--model", "x", "--out", out, "--k", "50"), "lower k"),
        ((shards, "--model", "x", "--out", shards / "00000.tar"), "is a file"),
    ):
        assert message in one_sentence(run("prune", *arguments)), message


@pytest.mark.slow
@pytest.mark.usefixtures("colour_model")
def test_killed_again_and_again_it_ends_with_the_same_result(shards: Path, tmp_path: Path) -> None:
    assert run(*prune(shards, tmp_path / "whole")).exit_code == 1
    out = tmp_path / "killed"
    for kill_after in (10, 40):
        command = [sys.executable, "-m", "tests.data.colour_model", str(kill_after), *prune(shards, out)]
        killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=600, check=False)
        assert killed.returncode == -9, killed.stderr
    assert not (out / "keep.parquet").exists()
    assert 0 < len(list(out.rglob("*.tar.parquet"))) < 5
    assert run(*prune(shards, out)).exit_code == 1
    assert results(out) == results(tmp_path / "whole")


@pytest.mark.usefixtures("colour_model")
def test_two_ranks_end_with_the_result_of_one(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*prune(shards, tmp_path / "one"))
    out = tmp_path / "two"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    second = run(*prune(shards, out))
    assert (second.exit_code, (out / "keep.parquet").exists()) == (0, False)
    assert "Rank 1 is done" in second.stderr
    monkeypatch.setenv("RANK", "0")
    first = run(*prune(shards, out))
    assert first.exit_code == 0, first.stderr
    assert "1 of 40 pairs skipped" in first.stderr
    assert results(out) == results(tmp_path / "one")


def prune(shards: Path, out: Path) -> list[str]:
    return ["prune", str(shards), "--model", "x", "--out", str(out), "--k", "0.2"]


def results(out: Path) -> dict[str, bytes]:
    """All that pruning wrote, without the record of the command."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "prune.json"
    }
