"""Prompt templates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ttd.errors import InputError
from ttd.text.templates import templates


def test_the_named_ones_are_the_published_ones(shared: Path) -> None:
    published = json.loads((shared / "reference" / "templates.json").read_text("utf-8"))
    assert {name: len(lines) for name, lines in published.items()} == {
        "openai80": 80, "maskclip85": 85, "tcl9": 9, "simple": 1, "none": 1,
    }  # fmt: skip
    for name, lines in published.items():
        assert templates(name) == tuple(lines)


def test_every_named_template_has_one_place_for_the_text() -> None:
    for name in ("openai80", "maskclip85", "tcl9", "simple", "none"):
        assert all(template.count("{}") == 1 for template in templates(name))
    assert templates("none") == ("{}",)


def test_ones_own() -> None:
    assert templates("a drawing of {}") == ("a drawing of {}",)
    assert templates(["{}", "the {}."]) == ("{}", "the {}.")


@pytest.mark.parametrize(
    ("which", "message"), [("openai", "choose from openai80"), ([], "at least one"), (["{}", "a dog"], "with {}")]
)
def test_wrong_ones(which: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        templates(which)
