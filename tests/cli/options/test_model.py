"""Every setting of a protocol as an option: what the command gets, and what is refused."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from ttd.cli.options.model import ProtocolChanges, protocol_changes
from ttd.inference.protocols import options


def changes(*arguments: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    @click.command()
    @protocol_changes
    def command(changes: ProtocolChanges) -> None:
        found.append(changes.changes())

    done = CliRunner().invoke(command, list(arguments))
    assert done.exit_code == 0, done.output
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("--size 336 --window 224 --stride 112", {"size": 336, "window": 224, "stride": 112}),
        ("--window none", {"window": None}),
        ("--scales 1,0.5 --flip", {"scales": (1.0, 0.5), "flip": True}),
        ("--no-flip --templates tcl9", {"flip": False, "templates": "tcl9"}),
        ("--background 0.4", {"background": 0.4}),
        ("--background 0", {"background": 0.0}),
        ("--background none", {"background": False}),
        ("--background names", {"background": "names"}),
        ("--background sky;", {"background": ("sky",)}),
        ("--refine pamr --pamr-steps 3 --pamr-grid image", {"refine": "pamr", "pamr_steps": 3, "pamr_grid": "image"}),
        ("--pamr-dilations 8,16", {"pamr_dilations": (8, 16)}),
        (
            "--logit-scale 40 --prob-threshold 0.1 --area-threshold 0.2",
            {"logit_scale": 40.0, "prob_threshold": 0.1, "area_threshold": 0.2},
        ),
    ],
)
def test_options_are_the_fields_of_options(arguments: str, expected: dict[str, Any]) -> None:
    found = changes(*arguments.split())
    assert found == expected
    if found.get("background") != "names":
        options("sclip", "masks", **found)  # and every one of them is a value that `ttd.Options` takes


def test_several_words_for_the_background() -> None:
    assert changes("--background", "sky; brick wall;tree ") == {"background": ("sky", "brick wall", "tree")}


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--background", "sky"), "one word: 'sky;'"),
        (("--background", "1.5"), "not a number from 0 to 1"),
        (("--background", " ; "), "is not a number from 0 to 1, none"),
        (("--window", "0"), "neither a number of pixels"),
        (("--scales", "1,x"), "not numbers separated by commas"),
        (("--pamr-dilations", "8,1.5"), "not whole numbers separated by commas"),
        (("--pamr-grid", "half"), "quarter"),
        (("--prob-threshold", "2"), "0.0<=x<=1.0"),
        (("--area-threshold", "nan"), "area_threshold"),
    ],
)
def test_what_cannot_be_is_refused_with_its_cause(arguments: tuple[str, ...], cause: str) -> None:
    @click.command()
    @protocol_changes
    def command(changes: ProtocolChanges) -> None:
        options(None, "masks", **changes.changes())

    done = CliRunner().invoke(command, list(arguments))
    assert done.exit_code != 0
    assert cause in done.output + str(done.exception)
