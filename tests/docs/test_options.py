"""The pages name commands, options and functions that exist, and the page on the command line names all options."""

from __future__ import annotations

import re

import click
import pytest

from tests.docs.pages import PAGES, ROOT, commands, inline_commands, read_blocks
from ttd.cli import COMMANDS, cli

COMMAND_LINE = (ROOT / "docs/command-line.md").read_text("utf-8")
OURS = ("tag", "heatmap", "mask", "segment", "models", "demo")
ELSEWHERE = {"--nproc-per-node"}  # torchrun's


def test_every_option_is_described_and_none_is_made_up() -> None:
    known = set()
    for name in (*COMMANDS, "models check"):
        options = flags(name.split())
        known |= {flag for flag in options if flag.startswith("--")} | {"--help"}
        if name in OURS:
            assert f"ttd {name}" in COMMAND_LINE
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", COMMAND_LINE))
    assert told <= known | ELSEWHERE
    shared = {"--model", "--adapter", "--adapter-scale", "--method", "--protocol", "--size", "--refine", "--sam-model"}
    assert shared | {"--device", "--dtype", "--out", "--json", "--batch", "--background", "--tags", "--score"} <= told


@pytest.mark.parametrize("page", PAGES)
def test_every_command_named_in_the_text_exists_with_its_options(page: str) -> None:
    """Also in uses with placeholders, which cannot be run."""
    shell = [command.line for block in read_blocks(page) if block.kind == "console" for command in commands(block)]
    for line in [*inline_commands(page), *(line for line in shell if line.startswith("ttd "))]:
        words = re.sub(r"[\[\]|;]", " ", line.partition("#")[0]).split()
        known = flags(words[words.index("ttd") + 1 :])
        assert {word for word in words if word.startswith("--")} <= known | ELSEWHERE | {"--"}, (page, line)


def flags(words: list[str]) -> set[str]:
    """The options of the command that the first words name."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        if re.fullmatch(r"[a-z][a-z-]*", word):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"there is no {' '.join(words)}"
            command = found
    return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}


def test_every_function_of_the_table_is_where_it_says() -> None:
    text = (ROOT / "docs/equations.md").read_text("utf-8")
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| `(ttd/\S+)` \|$", text, re.M)
    assert len(rows) >= 15
    for names, file in rows:
        source = (ROOT / "src" / file).read_text("utf-8")
        for name in re.findall(r"`(?:\w+\.)?(\w+)`", names):
            assert re.search(rf"^\s*(def|class) {name}\b|^{name}(: [^=]+)? = ", source, re.M), (name, file)
