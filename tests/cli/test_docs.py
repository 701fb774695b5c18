"""The page on the command line names only commands and options that exist, and all of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from ttd.cli import COMMANDS, cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text("utf-8")
EXAMPLES = re.findall(r"^\$ ttd (.+?)(?:;.*)?$", PAGE, re.MULTILINE)
OURS = ("tag", "heatmap", "mask", "segment", "models", "demo")


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_parse(example: str) -> None:
    name, *arguments = shlex.split(example)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments).close()


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
    shared = {"--model", "--adapter", "--adapter-scale", "--variant", "--preset", "--size", "--refine", "--sam-model"}
    assert shared | {"--device", "--dtype", "--out", "--json", "--batch", "--background", "--tags", "--score"} <= told
