"""The page on the command line: its examples run, and it names all options and none that do not exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import ttd
from ttd.cli import COMMANDS, cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text("utf-8")
OURS = ("tag", "heatmap", "mask", "segment", "models", "demo")


def test_the_examples_run_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ttd.model.load", cache(ttd.load))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    lines = re.findall(r"^\$ (.+)$", PAGE, re.MULTILINE)
    assert sum(line.startswith("ttd ") for line in lines) >= 9
    for line in lines:
        if not line.startswith("ttd "):
            subprocess.run(["bash", "-c", line], check=True, timeout=60)
            continue
        result = CliRunner().invoke(cli, shlex.split(line.split(";")[0])[1:])
        skips_some = line.startswith("ttd tag photos")
        assert result.exit_code == (1 if skips_some else 0), (line, result.output)
    assert (tmp_path / "results" / "images" / "a.png-scores.png").is_file()


def test_every_option_is_described_and_none_is_made_up() -> None:
    known = set()
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
        known |= {flag for flag in options if flag.startswith("--")} | {"--help"}
        if name in OURS:
            assert f"ttd {name}" in PAGE
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE))
    assert told <= known
    shared = {"--model", "--adapter", "--adapter-scale", "--method", "--protocol", "--size", "--refine", "--sam-model"}
    assert shared | {"--device", "--dtype", "--out", "--json", "--batch", "--background", "--tags", "--score"} <= told
