"""Pages of the site that other files already hold: `make docs` calls it through mkdocs.

The README is the first page; the reference pages are generated, of every command with its
options and of every name in `ttd.__all__`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

import ttd
from ttd.cli import cli

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("ttd.scoring", "ttd.maps", "ttd.losses", "ttd.negatives")
"""Whose functions are the paper's equations."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    pages = {
        "index.md": to_site((ROOT / "README.md").read_text("utf-8")),
        **{name: to_site((ROOT / name).read_text("utf-8")) for name in ("CONTRIBUTING.md", "CHANGELOG.md")},
        "reference/command-line.md": commands(),
        "reference/python.md": names(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def to_site(text: str) -> str:
    """The links of a file beside `docs/` as they are from within; files that are not part of the site lose theirs."""
    text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", text)
    return re.sub(r"(?<!!)\[([^]]+)\]\((?!https?://|#)(?![\w./-]+\.(?:md|ipynb)(?:#[\w-]+)?\))[^)]+\)", r"\1", text)


def commands() -> str:
    """Every command's `--help`, from the program itself."""
    pages: list[str] = []

    def add(command: click.Command, called: str, parent: click.Context | None) -> None:
        context = click.Context(command, parent, called, terminal_width=100)
        pages.append(f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                add(inner, name, context)

    add(cli, "ttd", None)
    return "\n\n".join(["# Every command and option", *pages]) + "\n"


def names() -> str:
    """Every public name, where it is defined."""
    public = [name for name in ttd.__all__ if name not in ("__version__", "errors")]
    parts = [f"::: {ttd._HOMES.get(name, 'ttd.errors')}.{name}" for name in public]
    modules = [f"## {module}\n\n::: {module}\n    options: {{show_root_heading: false}}" for module in MODULES]
    head = "# Every public name\n\nAll but those under a module's name are imported from `ttd`."
    return "\n\n".join([head, "## ttd", *parts, *modules]) + "\n"
