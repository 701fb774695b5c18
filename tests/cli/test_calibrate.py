from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ttd
from tests.cli.conftest import invoke as run
from tests.cli.conftest import one_sentence
from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import COLOURS, image, write_colour_shards, write_tar
from ttd.encoders.calibration import read_calibration

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = tuple(COLOURS)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five shards of 32 pairs; every eighth caption names a wrong colour, one image is broken."""
    write_colour_shards(tmp_path / "cc", 32, lambda number: number % 8 == 1)
    (tmp_path / "colours.txt").write_text("\n".join(NAMES[:3]))
    return tmp_path / "cc"


def calibrate(shards: Path, out: Path) -> list[str]:
    return ["calibrate", str(shards), "--model", "x", "--out", str(out), "--words", str(shards.parent / "colours.txt")]


def results(out: Path) -> dict[str, bytes]:
    """All that was written, without the record of the command."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    record = json.loads(found.pop("calibration.json"))
    return found | {"record": json.dumps({k: v for k, v in record.items() if k != "command"}).encode()}


@pytest.mark.usefixtures("colour_model")
def test_the_curve_lies_between_right_and_wrong_colours(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*calibrate(shards, out), "--json")
    assert result.exit_code == 1, result.output  # one image is broken
    record = json.loads(result.stdout)
    calibration, content = read_calibration(out / "calibration.json")
    assert calibration.to_dict() == record["calibration"]
    assert -1 / 3 < calibration.c < 1
    assert calibration.w > 1
    assert content["fingerprint"] == ColourModelEncoder().fingerprint()
    assert record["before"]["w"] == 10.0
    assert "000000013: broken image" in result.stderr
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "wrote" in run(*calibrate(shards, out)).stdout


@pytest.mark.usefixtures("colour_model")
def test_two_ranks_end_with_the_result_of_one(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*calibrate(shards, tmp_path / "one"))
    out = tmp_path / "two"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    second = run(*calibrate(shards, out))
    assert (second.exit_code, (out / "calibration.json").exists()) == (0, False)
    monkeypatch.setenv("RANK", "0")
    assert run(*calibrate(shards, out)).exit_code == 0
    assert results(out) == results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.usefixtures("colour_model")
def test_killed_it_ends_with_the_same_result(shards: Path, tmp_path: Path) -> None:
    run(*calibrate(shards, tmp_path / "whole"))
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.data.colour_model", "70", *calibrate(shards, out)]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=600, check=False)
    assert killed.returncode == -9, killed.stderr
    assert not (out / "calibration.json").exists()
    assert 0 < len(list(out.rglob("*.tar.parquet"))) < 5
    run(*calibrate(shards, out))
    assert results(out) == results(tmp_path / "whole")


@pytest.mark.usefixtures("colour_model")
def test_mistakes_are_answered_in_a_sentence(shards: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    plain = ["calibrate", shards, "--model", "x", "--out", tmp_path / "out"]
    for arguments, message in (
        (plain, "too few"),  # none of these words is in the list
        ([*calibrate(shards, tmp_path / "other"), "--write-model", full], "is not empty"),
        ([*plain, "--words", tmp_path / "none.txt"], "cannot be read"),
        ([*plain, "--batch", "1"], "--batch"),
    ):
        assert message in one_sentence(run(*arguments)), message


@pytest.mark.usefixtures("colour_model")
def test_what_cannot_be_fitted_is_drawn(shards: Path, tmp_path: Path) -> None:
    """Captions of other images."""
    for shard in range(2):
        samples = {
            f"{n:09d}": {"png": image(n), "txt": f"a {NAMES[(n // 4) % 4]} thing".encode()}
            for n in range(shard * 128, shard * 128 + 128)
        }
        write_tar(tmp_path / "wrong" / f"{shard:05d}.tar", samples)
    out = tmp_path / "out"
    message = one_sentence(run(*calibrate(shards, out)[:1], tmp_path / "wrong", *calibrate(shards, out)[2:]))
    assert "do not fit together" in message
    assert f"{out / 'calibration.png'} shows" in message
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "calibration.json").exists()


def test_the_written_model_has_the_new_calibration(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", tmp_path / "model"
    assert run("scenes", "write", tmp_path / "scenes", "--count", "96").exit_code == 0
    result = run("calibrate", tmp_path / "scenes", "--model", "mini", "--out", out, "--write-model", folder)
    assert result.exit_code == 0, result.output
    calibration, _ = read_calibration(out / "calibration.json")
    assert ttd.load(folder).encoder.calibration == calibration != ttd.load("mini").encoder.calibration
    assert ttd.load("mini", calibration=out / "calibration.json").encoder.calibration == calibration
