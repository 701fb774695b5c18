"""docs/reproduce.md: every table and figure is there, and its numbers are the published and the committed ones.

That its commands have the options which they name is checked by `test_options`.
"""

from __future__ import annotations

import json
import re

from tests.docs.pages import ROOT, inline_commands
from ttd.evaluation.report.tables import published
from ttd.registry import DATASETS

PAGE = (ROOT / "docs/reproduce.md").read_text("utf-8")
KINDS = ("classes", "tags", "masks", "multilabel", "val", "testA", "testB")
NUMBERS = re.compile(r"`([a-z0-9+.-]+)`: ((?:[^|;.`]|\.(?=\d)|;)+)")


def test_every_table_and_figure_has_a_row() -> None:
    for what, most in (("Table", 12), ("Figure", 14)):
        named = set()
        for row in re.findall(rf"^\| {what}s? ([\d, ab]+) \|", PAGE, re.M):
            named |= {int(number) for number in re.findall(r"\d+", row)}
        assert named == set(range(1, most + 1)), what
    commands = {command.split()[1] for command in inline_commands("docs/reproduce.md")}
    assert {"eval", "compare", "train", "prune", "report", "bias"} <= commands


def test_every_number_is_the_published_or_the_committed_one() -> None:
    checked = {"published": 0, "ours": 0}
    for name, text in NUMBERS.findall(PAGE):
        for part in text.split(";"):
            what, _, number = part.strip().rpartition(" ")
            if name in DATASETS.names():
                rows = [row for kind in KINDS for row in published(name, kind) if row.method == what]
                assert float(number) in {value for row in rows for value in row.numbers.values()}, (name, part)
                checked["published"] += 1
            else:
                row = json.loads((ROOT / f"experiments/rows/mini/{name}.json").read_text("utf-8"))
                assert number == f"{row['numbers'][what]:.3f}", (name, part)
                checked["ours"] += 1
    assert checked["published"] >= 25
    assert checked["ours"] >= 9
