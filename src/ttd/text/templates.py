"""Prompt templates by name: "openai80", "maskclip85", "tcl9", "simple", "none" (the bare text)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ttd.errors import InputError
from ttd.files.documents import parse_json


def templates(which: str | Sequence[str]) -> tuple[str, ...]:
    """The templates of a name, a single template, or the caller's own list; each has `{}` for the text.

    Raises:
        InputError: an unknown name, an empty list, or a template without `{}`.
    """
    if isinstance(which, str):
        chosen = _named().get(which) or ((which,) if "{}" in which else ())
        if not chosen:
            raise InputError(f"unknown templates {which!r}: choose from {', '.join(_named())}, or write one with {{}}")
        return chosen
    chosen = tuple(which)
    if not chosen or any("{}" not in template for template in chosen):
        raise InputError("templates: give at least one, each with {} where the text goes")
    return chosen


@cache
def _named() -> dict[str, tuple[str, ...]]:
    content = parse_json(files("ttd").joinpath("assets/templates.json").read_bytes())
    return {name: tuple(lines) for name, lines in content.items()}
