"""The notebook of the tour: its outputs are in it and clean, and all its cells run, made small."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ttd.cli import cli

DOCS = Path(__file__).parents[1] / "docs"
TOUR = DOCS / "tour.ipynb"
CELLS = json.loads(TOUR.read_text("utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
SMALL = {"--count": "8", "--steps": "1"}
ABSOLUTE = re.compile(r"(?<![\w.:/])(/(?:home|root|tmp|work|usr|opt|Users|var|mnt)\b|[A-Z]:\\)")


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def texts(cell: dict[str, Any]) -> list[str]:
    """What a cell printed or showed as words."""
    found = []
    for output in cell["outputs"]:
        found.append("".join(output.get("text", "")))
        found += ["".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def command_lines(cell: dict[str, Any]) -> list[list[str]]:
    """The `ttd` commands of a bash cell, with its variables filled in and its redirections left out."""
    values: dict[str, str] = {}
    lines = []
    for line in source(cell).splitlines()[1:]:
        line = re.sub(r"\$(\w+)", lambda found: values[found[1]], line).split(" > ")[0]
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
            values[assigned[1]] = assigned[2]
        elif line and line not in ("set -e", "exec 2>&1"):
            program, *words = shlex.split(line)
            assert program == "ttd", line
            lines.append(words)
    return lines


def is_bash(cell: dict[str, Any]) -> bool:
    return source(cell).startswith("%%bash\n")


def test_it_ran_from_the_top_without_errors_or_warnings() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE[1:] for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in CODE[1:])  # the first only imports
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not [cell["id"] for cell in CELLS if cell["metadata"]]  # times of execution would stand there
    images = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(images) == sum("show(" in source(cell) for cell in CODE[1:]) >= 5
    assert TOUR.stat().st_size < 1_500_000


def test_it_names_no_path_of_a_machine() -> None:
    for cell in CELLS:
        for text in [source(cell), *(texts(cell) if cell["cell_type"] == "code" else [])]:
            assert not ABSOLUTE.search(text), (cell["id"], text)


def test_its_links_lead_somewhere() -> None:
    links = [link for cell in CELLS if cell not in CODE for link in re.findall(r"\]\(([^)]+)\)", source(cell))]
    assert len(links) >= 6
    assert not [link for link in links if not (DOCS / link).is_file()]


def test_the_commands_in_its_text_exist() -> None:
    named = [name for cell in CELLS if cell not in CODE for name in re.findall(r"`ttd ([a-z -]+)", source(cell))]
    assert named
    for name in named:
        command: click.Command | None = cli
        for word in name.split():
            if isinstance(command, click.Group):
                command = command.get_command(click.Context(command), word)
                assert command is not None, name


@pytest.fixture
def notebook_display(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """`IPython.display` without IPython; gives what was shown."""
    shown: list[object] = []
    module = ModuleType("IPython.display")
    module.Image = lambda data, format: shown.append((format, data))  # type: ignore[attr-defined]
    module.Markdown = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook_display: list[object]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = {}
    for cell in CODE:
        if is_bash(cell):
            for words in command_lines(cell):
                small = [SMALL.get(before, word) for before, word in zip(["", *words], words, strict=False)]
                result = CliRunner().invoke(cli, small)
                assert result.exit_code == 0, (small, result.output)
            continue
        with redirect_stdout(io.StringIO()) as out:
            exec(compile(source(cell), cell["id"], "exec"), names)
        printed[cell["id"]] = out.getvalue()
    assert len(notebook_display) == sum("show(" in source(cell) for cell in CODE[1:]) + 1  # and the tables
    (tables,) = (shown for shown in notebook_display if isinstance(shown, str))
    assert "| **s_pixel (mini + adapter [after])** |" in tables
    assert "Table" not in tables
    # What does not depend on the training is what the notebook shows.
    for cell in CODE:
        if cell["id"] in ("image", "words", "segment"):
            assert printed[cell["id"]].strip() == texts(cell)[0].strip()
