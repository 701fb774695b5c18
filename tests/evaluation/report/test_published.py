"""The published numbers: their form, and the paper's own table read again from its text."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from ttd.evaluation.report.published import published
from ttd.evaluation.report.tables import comparisons
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


def test_a_comparison_shows_the_setting_of_a_published_row() -> None:
    results = {"benchmark": "voc20", "numbers": {"mIoU": 0.5}, "measured": 3}
    (table,) = comparisons([("mine", results)])
    assert ("NACLIP (CLIP ViT-B/16, PAMR)", "83.0", "README of github.com/sinahmr/NACLIP") in table.rows
    assert table.rows[0][1] == "50.0"
