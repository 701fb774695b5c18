"""Every block of the README and of the pages runs, in order, in one folder for each page.

The names of real models lead to small random ones (`stand_ins`), the files that a page takes for granted are small
(`inputs`), and a few numbers are made small (`smaller`). What is left out is in `left_out`, and listed at the end.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOLD
from tests.docs.conftest import Ran, Session, World
from tests.docs.inputs import prepare
from tests.docs.left_out import reason
from tests.docs.pages import DATA, PAGES, PYTHON, SHELL, TEXT, Block, commands, read_blocks, statements
from tests.docs.smaller import smaller
from tests.docs.uses import use

STOPPED = 130  # a server that was asked once and stopped
pytestmark = pytest.mark.apart
# Among the fast tests; every other page takes seconds of a processor's time and is slow.
FIRST_PAGES = ("README.md", "docs/quickstart.md")
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page in FIRST_PAGES else [pytest.mark.slow]) for page in PAGES]
)
def test_every_block_runs(page: str, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    prepare(page, folder, world.clients, lambda line: world.check(line, folder))
    session = world.session(folder)
    if page.endswith(".ipynb"):
        session.run(NOTEBOOK)
    faults = []
    for block in read_blocks(page):
        assert block.kind in (SHELL, "bash", PYTHON, *DATA, TEXT), f"{page}:{block.line}: what is {block.kind}?"
        if is_long(block):
            continue
        try:
            run_block(block, world, folder, session)
        except AssertionError as fault:  # the blocks below it may tell of more
            faults.append(f"{page}:{block.line}\n{fault}")
    assert not faults, "\n\n".join(faults)


def is_long(block: Block) -> bool:
    """Whether a block takes most of a minute even when it is made small; it needs nothing of those above it."""
    return block.kind == SHELL and any(re.search(r"experiments\.(prove|report)\b", c.line) for c in commands(block))


LONG = [block for page in PAGES for block in read_blocks(page) if is_long(block)]


@pytest.mark.slow
@pytest.mark.parametrize("block", LONG, ids=[f"{block.page}:{block.line}" for block in LONG])
def test_every_long_block_runs(block: Block, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    prepare(block.page, folder, world.clients, lambda line: world.check(line, folder))
    run_block(block, world, folder, world.session(folder))


def run_block(block: Block, world: World, folder: Path, session: Session) -> None:
    if block.kind == PYTHON:
        printed = session.run("".join(part for part in statements(block) if reason(part) is None))
        assert not block.shown or close(block.shown, printed), f"printed\n{printed}\nwhere the page has\n{block.shown}"
    elif block.kind in DATA:
        use(block, folder, lambda line: world.check(line, folder))
    elif block.kind != TEXT:
        asked = [command for command in commands(block) if reason(command.line) is None]
        ran = world.shell([command.line for command in asked], folder)
        pairs = zip(asked, ran, strict=True)
        faults = [fault for command, done in pairs if (fault := wrong(command.line, command.output, done))]
        assert not faults, "\n".join(faults)


def wrong(line: str, shown: str, ran: Ran) -> str | None:
    """What is wrong with the exit code, or with the output where the page shows it; None: nothing."""
    expected = int("Skipped" in shown and "exit code" not in shown)
    if re.match(r"ttd models check (?!mini\b)", line):
        expected = 1  # the stand-in is smaller than the catalogue's model, which the command says
    is_right = ran.code == expected
    if re.match(r"ttd app\b", line):
        is_right = ran.code == STOPPED and "asked: 200 True" in ran.output
    if is_right and "does not provide the extra" not in ran.output:
        if not shown or close(shown, ran.output):
            return None
        return f"{line}\nprinted\n{ran.output}\nwhere the page has\n{shown}"
    return f"{line}\nended with {ran.code}\n{ran.output[-1500:]}"


def close(shown: str, printed: str) -> bool:
    """Whether two outputs say the same, up to the last digits of their numbers and the lengths of bars."""
    shown, printed = (re.sub(r"[ ▏▎▍▌▋▊▉█]+", " ", text).strip() for text in (shown, printed))
    if [_strip(line) for line in shown.splitlines()] != [_strip(line) for line in printed.splitlines()]:
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(float(b) == pytest.approx(float(a), rel=0.02, abs=0.01) for a, b in pairs)


def _strip(line: str) -> str:
    return _NUMBER.sub("#", line).strip()


# `IPython.display` without IPython.
NOTEBOOK = """
import sys, types
_display = types.ModuleType("IPython.display")
_display.Image = lambda data, format: data
_display.Markdown = lambda text: print(text)
sys.modules["IPython.display"] = _display
"""


def test_what_is_left_out(record_property: Callable[[str, object], None]) -> None:
    """Counts, and the lists of what does not run here and of what runs with smaller numbers."""
    run, left, changed = {PYTHON: 0, SHELL: 0, "data": 0}, list[str](), list[str]()
    blocks = [block for page in PAGES for block in read_blocks(page) if block.kind != TEXT]
    for block in blocks:
        place = f"{block.page}:{block.line}"
        if block.kind in DATA:
            run["data"] += 1
            continue
        python = block.kind == PYTHON
        for part in statements(block) if python else [command.line for command in commands(block)]:
            if why := reason(part):
                left.append(f"{place}: {' '.join(part.split())[:90]}\n    {why}")
                continue
            run[PYTHON if python else SHELL] += 1
            if not python:
                changed += [f"{place}: {line}" for line in made_smaller(part)]
    lines = [
        f"{len(blocks)} blocks of {len(PAGES)} pages: {run[SHELL]} commands, {run[PYTHON]} Python statements and "
        f"{run['data']} blocks of data run ({len(LONG)} blocks are slow)",
        f"{len(left)} left out:", *left, f"{len(changed)} with smaller numbers:", *changed,
    ]  # fmt: skip
    record_property(TOLD, "\n".join(lines))
    assert not [what for what in left if what.startswith("README.md")]


def made_smaller(script: str) -> list[str]:
    """The commands of a script that a test runs with other numbers, as it runs them."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        if not re.match(r"\S*(ttd|python -m) ", line):  # also a line within quotes
            continue
        program, *arguments = shlex.split(line, comments=True)
        skipped = int(arguments[:1] == ["-m"])
        told, run = arguments[skipped:], smaller(arguments[skipped:])
        if run != told:
            found.append(shlex.join([Path(program).name, *arguments[:skipped], *run]))
    return found
