"""Bad input and use: one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
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


# A command that prints what no Windows code page has, and a name that is not UTF-8.
PRINTS = """
import sys, click
from ttd.cli.errors import PipeClosed, exit_code
@click.command()
@click.option("--out")
@click.option("--more", is_flag=True)
def cli(out, more):
    try:
        click.echo("\\u2588\\u2588\\u258f| caf\\u00e9 \\u72ac " + chr(0xDCFF))
        for _ in range(20000 if more else 0):
            click.echo("0123456789")
        click.echo('["\\U0001f600"]')
    except BrokenPipeError:
        raise PipeClosed from None  # as `ttd.cli.CommandGroup`
    if more:
        print("at the end", file=sys.stderr)
sys.exit(exit_code(lambda: cli(sys.argv[1:], standalone_mode=False)))
"""


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": str(options.pop("encoding", "utf-8"))}
    command = [sys.executable, "-c", PRINTS, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "cp1252:strict"])
def test_every_text_can_be_printed_in_every_encoding(encoding: str) -> None:
    done = run(encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert lines[0].startswith("\u2588\u2588" if encoding == "utf-8" else "## |")
    assert ("\u72ac" if encoding == "utf-8" else "\\u72ac") in lines[0]
    assert json.loads(lines[1]) == ["\U0001f600"]


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
@pytest.mark.parametrize(("out", "code"), [(["--out", "x"], 0), ([], 141)])
def test_a_reader_that_goes_away_fails_only_what_has_no_other_result(out: list[str], code: int) -> None:
    command = f"set -o pipefail; '{sys.executable}' -c \"$PRINTS\" --more {' '.join(out)} | true"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PRINTS": PRINTS, "PYTHONIOENCODING": "utf-8"}, capture_output=True
    )
    assert done.returncode == code
    assert done.stderr == (b"at the end\n" if out else b"")


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
def test_a_stdout_that_is_closed_is_no_error_and_no_file_gets_what_is_printed(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    code = PRINTS.replace('print("at the end"', f'f = open({str(shown)!r}, "w"); print("at the end"')
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$CODE\" --more >&-"], env={**os.environ, "CODE": code}
    )
    assert done.returncode == 0
    assert shown.read_text() == ""
