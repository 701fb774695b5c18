"""Every line of the quickstart runs, with the model in the package."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ttd.cli import cli

QUICKSTART = (Path(__file__).parents[1] / "docs" / "quickstart.md").read_text("utf-8")


def test_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\$ ttd (.+)$", QUICKSTART, re.M)
    assert len(lines) >= 4
    for line in lines:
        result = CliRunner().invoke(cli, shlex.split(line))
        assert result.exit_code == 0, (line, result.output)
    assert (tmp_path / "mask.png").exists()
    assert (tmp_path / "segmented.png").exists()


def test_python(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", QUICKSTART, re.S)
    assert blocks
    exec("\n".join(blocks), {})
    printed = capsys.readouterr().out
    assert "IoU with the truth: 0." in printed
    assert "* " in printed
