"""Tables in every format, read back by an independent reader of that format."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.test_eval import command
from tests.evaluation.conftest import Eval
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Oracle
from ttd.evaluation.report.formats import to_csv, to_html, to_json, to_latex, to_markdown
from ttd.evaluation.report.tables import Cell, Row, Table

HOSTILE = "a & b % $x$ #1 _{}~^\\ ± … <i>|\x00\ue000\n"
TABLE = Table(
    "Title_1",
    ("model", "method"),
    ("mIoU", "mFPR"),
    (
        Row((HOSTILE, "m"), {"mIoU": Cell(50.04, 0.5), "mFPR": Cell(0.25)}, "this run"),
        Row(("b", "n"), {"mIoU": Cell(61.0, None, 10.96, (9.5, 12.25)), "mFPR": Cell(0.5)}, "this run"),
    ),
    published=(Row(("TCL",), {"mIoU": Cell(55.0)}, "Table 4"),),
    others=(Row(("GroupViT",), {"mIoU": Cell(70.0)}, "Table 4"),),
    common="protocol paper",
)


def test_the_best_is_bold_among_what_compares_and_lower_is_better_for_errors() -> None:
    text = to_markdown(TABLE)
    assert "| b | n | **61.0** (+11.0 [+9.5, +12.2]) | 0.500 | this run |" in text
    assert "| 50.0 ±0.5 | **0.250** |" in text
    assert "70.0" in text.partition("<details>")[2]
    assert "All: protocol paper." in text
    part = replace(TABLE, rows=tuple(replace(row, sample="a sample of 3") for row in TABLE.rows))
    assert part.best == {"mIoU": 61.0, "mFPR": 0.25}
    high = (Row(("TCL",), {"mIoU": Cell(95.0)}, "Table 4"),)
    assert (replace(part, published=high).best["mIoU"], replace(TABLE, published=high).best["mIoU"]) == (61.0, 95.0)
    alone = Table("t", ("model",), ("mIoU",), TABLE.rows[1:])
    assert "**" not in to_markdown(alone)


def test_names_stay_names_in_html() -> None:
    page = to_html(TABLE)
    assert "<i>" not in page
    assert page.count("<b>") == page.count("</b>") == 2
    assert "<td class=number><b>61.0</b> (+11.0" in page


def check_latex(text: str) -> list[list[str]]:
    """The cells of the only tabular; fails where LaTeX would: braces, environments, columns, characters."""
    open_environments: list[str] = []
    form, rows = "", list[list[str]]()
    for line in text.splitlines():
        if line.startswith("%"):
            continue
        depth = 0
        for token in re.findall(r"\\[A-Za-z]+|\\.|[^\\]", line):
            assert token.isascii() or token.isalpha(), f"{token!r} needs a package"
            assert token not in ("%", "#", "~", "^"), line
            depth += (token == "{") - (token == "}")
            assert depth >= 0, line
        assert depth == 0, line
        assert len(re.findall(r"(?<!\\)\$", line)) % 2 == 0, line
        assert not re.search(r"(?<!\\)_", line), line
        if begin := re.match(r"\\begin\{(\w+)\}(?:\{(\w+)\})?", line):
            open_environments.append(begin[1])
            form = begin[2] or form
        elif end := re.match(r"\\end\{(\w+)\}", line):
            assert open_environments.pop() == end[1]
        elif line.endswith("\\\\"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)&", line[:-2])])
            assert open_environments == ["table", "tabular"]
            assert len(rows[-1]) == len(form), line
        else:
            assert re.fullmatch(r"\\(toprule|midrule|bottomrule|centering)|\\caption\{.*\}", line), line
    assert not open_environments
    return rows


def test_latex_holds_what_the_table_does() -> None:
    rows = check_latex(to_latex(TABLE))
    assert rows[0] == ["model", "method", "mIoU", "mFPR", "source"]
    assert rows[2][2] == "\\textbf{61.0} (+11.0 [+9.5, +12.2])"
    assert rows[1][2:4] == ["50.0 $\\pm$0.5", "\\textbf{0.250}"]
    assert [row[0] for row in rows[2:]] == ["b", "TCL"]
    assert "% 1 published row under other protocols are left out" in to_latex(TABLE)


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Lo", "So", "Sm", "Po", "Lm", "Sk"))))
def test_no_name_breaks_latex(name: str) -> None:
    ascii_name = "".join(char for char in name if char.isascii() or char.isalpha())
    check_latex(to_latex(Table(ascii_name, ("model",), ("mIoU",), (Row((ascii_name,), {"mIoU": Cell(1.0)}),))))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles_it(tmp_path: Path) -> None:
    """What `check_latex` takes for LaTeX is LaTeX: the hostile table, and a name of every printable ASCII character."""
    ascii_name = "".join(map(chr, range(32, 127)))
    second = Table("s", ("model",), ("mIoU",), (Row((ascii_name,), {"mIoU": Cell(1.0, 0.5)}),), common=ascii_name)
    lines = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}"]
    lines += [to_latex(TABLE), to_latex(second), "\\end{document}", ""]
    (tmp_path / "page.tex").write_text("\n".join(lines), "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert "Missing character" not in (tmp_path / "page.log").read_text("utf-8", "replace")


def test_csv_and_json_hold_every_row_with_its_numbers_as_they_are() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv({"voc": [TABLE]}))))
    records = json.loads(to_json({"voc": [TABLE]}))
    assert [line["origin"] for line in lines] == ["ours", "ours", "published", "published, other protocol"]
    assert [float(line["mIoU"]) for line in lines] == [row["mIoU"] for row in records] == [50.04, 61.0, 55.0, 70.0]
    assert lines[1]["mIoU gain low"] == "9.5"
    assert lines[0]["mIoU deviation"] == "0.5"
    assert lines[2]["mFPR"] == ""
    assert {line["benchmark"] for line in lines} == {"voc"}


@pytest.mark.parametrize("names", [["--latex"], ["--csv"], ["--json"], ["--markdown"], ["--csv", "--latex"]])
def test_a_report_prints_or_writes_the_formats_that_are_asked_for(
    names: list[str], tmp_path: Path, evaluate: Eval
) -> None:
    _, _, titles = write(tmp_path / "data", "voc20", count=2)
    for method, encoder in (("a", Oracle(titles)), ("b", Oracle(titles[::-1]))):
        assert evaluate(encoder, "voc20", tmp_path / "data", "--protocol", "default", "--out", tmp_path / method)
    printed = command("report", tmp_path / "a", tmp_path / "b", *names)
    assert printed.exit_code == 0, printed.output
    written = command("report", tmp_path / "a", tmp_path / "b", *names, "--out", tmp_path / "page")
    endings = {"--latex": "tex", "--csv": "csv", "--json": "json", "--markdown": "md"}
    texts = [(tmp_path / "page" / f"report.{endings[name]}").read_text("utf-8") for name in sorted(names)]
    assert (tmp_path / "page" / "report.html").is_file()
    assert written.exit_code == 0
    if names == ["--markdown"]:
        assert "## Classes of pixels" in printed.stdout
    else:
        order = sorted(texts, key=printed.stdout.index)
        assert printed.stdout == "".join(order)
    if "--json" in names:
        ours = [row for row in json.loads(printed.stdout) if row["origin"] == "ours"]
        assert [row["protocol"] for row in ours] == ["default", "default"]
        assert {"model", "adapter", "method", "protocol", "refinement", "settings", "commit"} <= set(ours[0])
        assert math.isclose(ours[0]["mIoU"], 100)


def test_a_report_without_a_place_or_a_format_is_wrong_use(tmp_path: Path) -> None:
    wrong = command("report", tmp_path)
    assert wrong.exit_code == 2
    assert "Give --out DIR" in wrong.stderr
