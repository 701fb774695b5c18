"""`ttd eval` and `ttd report` as commands: start, a kill, the joined page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ttd
from tests.cli.test_start import HEAVY, LOOK
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Oracle
from ttd.cli import cli
from ttd.cli.eval import SECTIONS
from ttd.model import TTD

KILLED_AT_THE_THIRD = """
import os, signal, sys
import ttd
from tests.evaluation.oracle import Oracle
from ttd.evaluation.datasets.classes import read_classes
from ttd.model import TTD
model, segment, asked = TTD(Oracle(read_classes("voc").titles)), TTD.segment, []
def kill(self, *args, **options):
    asked.append(1)
    if len(asked) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return segment(self, *args, **options)
TTD.segment = kill
ttd.__dict__["load"] = lambda *args, **options: model
from ttd.cli import main
main()
"""


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")


@pytest.mark.parametrize("arguments", [["eval", "--help"], ["eval", "voc"], ["report", "--help"]])
def test_help_and_wrong_use_import_nothing_heavy(arguments: list[str]) -> None:
    line = [sys.executable, "-c", LOOK % (HEAVY,), *arguments]
    result = subprocess.run(line, capture_output=True, text=True, timeout=600, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


def test_help_names_every_option_once_under_a_heading() -> None:
    lines = command("eval", "--help").stdout.splitlines()
    shown = [match[0] for line in lines if (match := re.match(r"  (?:-\w, )?--[a-z-]+", line))]
    assert [name.split()[-1] for name in shown] == [name for names in SECTIONS.values() for name in names]
    assert set(SECTIONS) <= {line.removesuffix(":") for line in lines}
    assert "Other:" not in lines


def test_a_killed_run_goes_on_and_the_report_joins_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, titles = write(tmp_path / "data", "voc", count=4)
    arguments = ["eval", "voc", "--data", str(tmp_path / "data"), "--model", "oracle", "--protocol", "default"]
    arguments += ["--images", "0"]
    out = ["--out", str(tmp_path / "killed")]
    line = [sys.executable, "-c", KILLED_AT_THE_THIRD, *arguments, *out]
    assert subprocess.run(line, capture_output=True, timeout=600, check=False).returncode == -9
    assert len((tmp_path / "killed" / "measurements.jsonl").read_bytes().splitlines()) == 2
    assert not (tmp_path / "killed" / "results.json").exists()
    model, segment, asked = TTD(Oracle(titles)), TTD.segment, []
    monkeypatch.setattr(TTD, "segment", lambda *args, **options: asked.append(1) or segment(*args, **options))
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: model)
    assert command(*arguments, *out).exit_code == 0
    assert len(asked) == 2
    assert command(*arguments, "--limit", 1, "--out", tmp_path / "short").exit_code == 0

    done = command("report", tmp_path / "killed", tmp_path / "short", "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "All: protocol default, refinement none, commit" in markdown
    assert "| oracle | killed | 100.0 |" in markdown
    assert "| oracle | short | 100.0 |" in markdown
    folded = markdown.partition("published rows under other protocols</summary>")[2].partition("</details>")[0]
    assert "| TCL + TTD |  | 61.1 | 0.185 | 0.204 |" in folded
    assert "this run, a sample of 4 |" in markdown
    assert "**oracle, short**: 1 of 1 items. Measured on a sample, 1 of 1449 images" in markdown
    assert markdown.count("Measured on a sample, 4 of") == 1
    assert "Only the first 1 of 4 items were asked about (--limit)." in markdown
    page = (tmp_path / "report" / "report.html").read_text()
    assert len(re.findall("class=ours", page)) == 2
    assert "http" not in page


def test_a_report_needs_results(tmp_path: Path) -> None:
    assert "no results.json" in command("report", tmp_path, "--out", tmp_path / "report").stderr
    (tmp_path / "results.json").write_text(json.dumps({"numbers": {}}))
    wrong = command("report", tmp_path, "--out", tmp_path / "report")
    assert wrong.exit_code == 2
    assert 'results.json has no "benchmark"' in wrong.stderr
