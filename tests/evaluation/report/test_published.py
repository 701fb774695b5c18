"""The published numbers: their form, and the paper's own table read again from its text."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ttd.evaluation.report.finished_run import FinishedRun
from ttd.evaluation.report.tables import published, tables
from ttd.inference.protocols import PROTOCOLS
from ttd.registry import DATASETS

ROWS = json.loads(files("ttd").joinpath("assets/published.json").read_text("utf-8"))["rows"]


def test_every_row_belongs_to_a_benchmark_and_names_its_source() -> None:
    assert {row["benchmark"] for row in ROWS} <= set(DATASETS.choices())
    for row in ROWS:
        assert published(row["benchmark"], row["table"])
        assert re.search(r"Table \d|README", row["source"])
        assert "http" not in row["source"]
        for measure, value in row["numbers"].items():
            assert 0 <= value <= (1 if measure in ("mFPR", "mFNR") else 100)
    keys = [(row["benchmark"], row["table"], row["method"], row.get("setting"), row["source"]) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_table_4_is_copied_to_the_digit(shared: Path) -> None:
    columns = ("voc", "context59", "coco-object", "coco-stuff", "cityscapes", "ade20k")
    lines = (shared / "paper" / "ttd.md").read_text("utf-8").split("**Table 4")[1].split("we conducted")[0].splitlines()
    names = {"OVSsegmentor": "OVSegmentor"}  # a slip of the paper's
    checked, before = 0, ""
    for line in lines:
        cells = line.split("\t")
        if len(cells) < 9 or cells[0] == "Method":
            continue
        name = re.sub(r" \[\d+\]", "", cells[0])
        name = f"{before} + TTD" if name.startswith("+ TTD") else names.get(name, name)
        before = name
        for benchmark, cell in zip(columns, cells[3:9], strict=True):
            number = re.search(r"\d+\.\d", cell)
            rows = [r for r in published(benchmark, "classes") if r.method == name and r.source.startswith("TTD")]
            assert [r.numbers["mIoU"] for r in rows] == ([float(number[0])] if number else [])
            checked += len(rows)
    assert checked == 69


def run(**changes: Any) -> FinishedRun:
    """One that measured VOC by NACLIP's protocol with PAMR."""
    settings: dict[str, Any] = {
        "model": {"name": "clip-vit-b16", "adapter": None, "method": "naclip", "encoder": {"refine": "none"}},
        "protocol": "naclip",
        "options": {"masks": {"refine": "pamr"}},
    }
    results = {"benchmark": "voc20", "numbers": {"mIoU": 0.5}, "measured": 3, "settings": settings}
    settings |= {name: value for name, value in changes.items() if name in settings}
    results |= {name: value for name, value in changes.items() if name not in settings}
    return FinishedRun(Path("runs/a"), results)


def test_published_rows_stand_beside_runs_of_their_own_protocol_alone() -> None:
    named = "NACLIP (CLIP ViT-B/16, PAMR)"
    for changes, shown in (
        ({}, True),
        ({"protocol": "paper"}, False),
        ({"options": {"masks": {"refine": "none"}}}, False),
        ({"choices": {"given": {"size": 336}}}, False),
    ):
        (table,) = tables([run(**changes)])
        beside, folded = ([row.names[0] for row in rows] for rows in (table.published, table.others))
        assert (named in beside, named in folded) == (shown, not shown), changes
        assert "ITACLIP" not in " ".join(beside)
        assert len(beside) + len(folded) == len(published("voc20", "classes"))
    (found,) = [row for row in table.others if row.names == (named,)]
    assert (found.cells["mIoU"].value, found.source) == (83.03, "README of github.com/sinahmr/NACLIP")


def test_the_papers_rows_are_under_its_protocol_with_the_refinement_of_its_model() -> None:
    rows = {row.method: row for row in published("voc", "classes") if row.source.startswith("TTD")}
    assert rows["TCL + TTD"].is_under("paper", "pamr")
    assert not rows["TCL + TTD"].is_under("paper", "none")
    assert rows["MaskCLIP + TTD"].is_under("paper", "crf")
    assert rows["TCL"].is_under("tcl", "pamr")
    assert not any(rows["GroupViT"].is_under(protocol, "none") for protocol in PROTOCOLS)
