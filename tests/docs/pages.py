"""Every block of the pages, and every command in them, in the order in which a reader meets them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")), "docs/tour.ipynb"]
SHELL, PYTHON, DATA, TEXT = "console", "python", ("json", "csv"), "text"
_FENCE = re.compile(r"( *)```(\w*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or a cell of the notebook.

    Attributes:
        page, line: where it begins (the notebook: which cell).
        kind: "console", "bash" (a cell), "python", "json", "csv" or "text" (layouts, formulas, uses with placeholders).
        text: without fences and indentation.
        shown: of a cell that depends on no training (before the first command), what it printed.
    """

    page: str
    line: int
    kind: str
    text: str
    shown: str = ""


@dataclass(frozen=True)
class Command:
    """What one press of the enter key runs.

    Attributes:
        line: with everything that continues it, without the prompt.
        output: what the page shows below it.
    """

    line: str
    output: str = ""


def read_blocks(page: str) -> list[Block]:
    """The blocks of a page of the repository."""
    text = (ROOT / page).read_text("utf-8")
    return list(_cells(page, text) if page.endswith(".ipynb") else _fenced(page, text))


def _fenced(page: str, text: str) -> Iterator[Block]:
    begin: re.Match[str] | None = None
    first, lines = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if begin is None:
            begin, first, lines = _FENCE.match(line), number, []
            assert begin is None or begin[2], f"{page}:{number}: a block that does not say what it is"
            assert begin or not line.lstrip().startswith("```"), f"{page}:{number}: a fence that is not understood"
        elif line == f"{begin[1]}```":
            yield Block(page, first, begin[2], "\n".join(lines))
            begin = None
        else:
            assert line.startswith(begin[1]) or not line.strip(), f"{page}:{number}: less indented than its block"
            lines.append(line[len(begin[1]) :])
    assert begin is None, f"{page}:{first}: a block without an end"


def _cells(page: str, text: str) -> Iterator[Block]:
    before_commands = True
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            continue
        is_bash = source.startswith("%%bash\n")
        before_commands &= not is_bash
        shown = "".join("".join(output.get("text", "")) for output in cell["outputs"]) if before_commands else ""
        yield Block(page, number, "bash" if is_bash else PYTHON, source.removeprefix("%%bash\n"), shown)


def commands(block: Block) -> list[Command]:
    """The commands of a shell block with what is shown below each; of a cell, its whole script as one."""
    if block.kind == "bash":
        return [Command(block.text)]
    found: list[Command] = []
    open_line = ""
    for line in block.text.splitlines():
        if open_line or line.startswith("$ "):
            open_line = f"{open_line}\n{line}" if open_line else line[2:]
            if _is_whole(open_line):
                found.append(Command(open_line))
                open_line = ""
        else:
            assert found, f"{block.page}:{block.line}: output before any command"
            last = found[-1]
            found[-1] = Command(last.line, f"{last.output}{line}\n")
    assert not open_line, f"{block.page}:{block.line}: a command that does not end"
    return found


def _is_whole(line: str) -> bool:
    if line.endswith("\\"):
        return False
    if "'" not in line and '"' not in line:
        return True
    return subprocess.run(["bash", "-nc", line], capture_output=True).returncode == 0


def statements(block: Block) -> list[str]:
    """The statements of a Python block, each with the comments above it."""
    lines = block.text.splitlines(keepends=True)
    ends = [node.end_lineno or 0 for node in ast.parse(block.text).body]
    begins = [0, *ends[:-1]]
    return ["".join(lines[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def inline_commands(page: str) -> list[str]:
    """`ttd ...` in the text, the tables and the text blocks of a page."""
    text = (ROOT / page).read_text("utf-8")
    if page.endswith(".ipynb"):
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] != "code")
    prose, fenced = [], list[str]()
    inside = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            prose.append(line)
    for block in read_blocks(page):
        if block.kind == TEXT:
            fenced += [line for line in block.text.splitlines() if line.startswith(("ttd ", "torchrun "))]
    quoted = re.findall(r"`([^`]+)`", "\n".join(prose))
    return fenced + [" ".join(code.split()) for code in quoted if re.match(r"ttd [a-z]|torchrun ", code)]
