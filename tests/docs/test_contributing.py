"""What CONTRIBUTING.md and the menus name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

NAMED = re.compile(r"`((?:\.?\w+/)+[\w.-]*|[\w.-]+\.(?:py|md|toml|yaml|cff))`|\]\(([^)#:]+)\)")
MADE = ("out/", "dist/")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    names = [path or link for path, link in NAMED.findall(text)]
    assert names
    assert [name for name in names if not (ROOT / name).exists() and not name.startswith(MADE)] == []


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", ".ci/run"])
def test_every_target_of_make_exists(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    asked = re.findall(r"\bmake ((?:[a-z][\w-]* ?)+)", _code(ROOT / page))
    assert asked
    assert {target for group in asked for target in group.split()} <= targets


def test_the_answers_are_ten_questions() -> None:
    table = re.findall(r"^\| (.+\?) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    assert len(table) == len(set(table)) >= 10


def _code(path: Path) -> str:
    """What stands in backticks or in blocks; all of a file that is not a page."""
    text = path.read_text("utf-8")
    if path.suffix != ".md":
        return text
    return "\n".join(re.findall(r"```.*?```|`[^`]+`", re.sub(r"#.*", "", text), re.S))
