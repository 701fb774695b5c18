"""The command line with the fake model, and a few images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import ttd
from tests.cli.fake_model import FakeModel
from tests.data.colour_model import ColourModelEncoder
from ttd.cli import cli
from ttd.model import TTD

Run = Callable[..., Result]


def invoke(*arguments: object) -> Result:
    """`ttd ARGUMENTS...` in this process; an error that is not an exit is raised."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def colour_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model that is named is one that knows colours."""
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(ColourModelEncoder()))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: fake)
    return fake


@pytest.fixture
def run(model: FakeModel) -> Run:
    """`invoke` with the fake model."""
    return invoke


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """60 x 40, its left third black, the rest white."""
    pixels = np.full((40, 60, 3), 255, np.uint8)
    pixels[:, :20] = 0
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, photo: Path) -> Path:
    """Five images with captions beside them, one of them broken, and one in a subfolder."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for name in ("a", "b", "c", "sub/d"):
        (place / f"{name}.png").write_bytes(photo.read_bytes())
        (place / f"{name}.txt").write_text(f"a {name[-1]} queue sky\n")
    (place / "broken.jpg").write_bytes(b"\xff\xd8 this is not an image")
    (place / "broken.txt").write_text("a dog")
    return place


def one_sentence(result: Result) -> str:
    """The only line on stderr of a command that failed with wrong input."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("ttd: ")
    assert lines[0].endswith((".", ")"))
    return lines[0]
