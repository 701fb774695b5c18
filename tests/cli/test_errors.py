"""Bad input and use: one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import ttd
from tests.cli.conftest import Run, one_sentence
from tests.cli.fake_model import FakeModel
from ttd.cli import cli
from ttd.cli.errors import sentence
from ttd.training.config import read_config


def real(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")


def test_images_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (50, 50)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-60])
    for name in ("missing.png", "text.png", "empty.png", "half.png"):
        assert name in one_sentence(run("tag", tmp_path / name, "a queue"))


def test_captions_without_words(run: Run, photo: Path) -> None:
    assert "no caption" in one_sentence(run("tag", photo))
    assert "no caption" in one_sentence(run("tag", photo, "  \n"))
    assert "no words are left" in one_sentence(run("tag", photo, "the of , ."))


def test_wrong_use_points_to_the_help(run: Run, photo: Path) -> None:
    assert "ttd tag --help" in one_sentence(run("tag"))
    assert "--dtype" in one_sentence(run("tag", photo, "a queue", "--dtype", "int3"))
    assert "--nothing" in one_sentence(run("tag", photo, "a queue", "--nothing"))
    assert "nothing" in one_sentence(run("nothing"))
    assert "--size" in one_sentence(run("tag", photo, "a queue", "--size", "0"))


def test_places_that_cannot_be_written(run: Run, photo: Path, tmp_path: Path, model: FakeModel) -> None:
    (tmp_path / "file").write_text("")
    assert "PNG" in one_sentence(run("tag", photo, "a queue", "--out", tmp_path / "x.jpg"))
    assert "is a file" in one_sentence(run("tag", photo, "a queue", "--out", tmp_path / "file"))
    under = one_sentence(run("tag", photo, "a queue", "--out", tmp_path / "file" / "x.png"))
    assert "file" in under
    assert model.calls == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(run: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "permission" in one_sentence(run("tag", photo, "a queue", "--out", tmp_path / "closed" / "x.png"))


def test_a_full_disk(run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Image.Image, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    result = run("tag", photo, "a queue", "--out", tmp_path / "out")
    assert "disk is full" in one_sentence(result)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (KeyboardInterrupt(), "Stopped", 130),
        (MemoryError(), "memory", 2),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "--size", 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "--size", 2),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "/x/model.safetensors"), "--size", 2),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y", 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "/x", 2),
        (ttd.ModelError("the adapter belongs to another model"), "another model", 2),
        (ttd.InputError("first line\nsecond \x1b line"), "first line second line", 2),
    ],
)
def test_sentences(error: BaseException, text: str, code: int) -> None:
    told = sentence(error)
    assert told is not None
    assert text in told[0]
    assert told[0].isprintable()
    assert told[1] == code


def test_what_the_sentence_about_memory_names_exists() -> None:
    """Options of some command each, and settings that `ttd train --set` takes."""
    told = sentence(MemoryError())
    assert told is not None
    named = re.findall(r"--[a-z-]+", told[0].partition("for training")[0])
    options = {name for command in _commands(cli) for option in command.params for name in option.opts}
    assert named == ["--size", "--batch", "--dtype"]
    assert set(named) <= options
    settings = re.findall(r"--set (\S+\w)", told[0])
    config = read_config("paper", settings)
    assert (config.optimiser.micro_batch, config.run.gradient_checkpointing) == (1, True)


def _commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from _commands(inner)


def test_a_bug_is_not_hidden(photo: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sentence(ZeroDivisionError()) is None
    monkeypatch.setattr(model, "tag_many", lambda *args, **options: 1 / 0)
    assert isinstance(real("tag", photo, "a queue").exception, ZeroDivisionError)
