"""The commands of experiments: a folder that another process uses is refused, as by every command of `ttd`."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from experiments.prove.__main__ import main
from experiments.train_mini.__main__ import train_mini
from ttd.runs.lock import RunLock


@pytest.mark.parametrize("command", [main, train_mini], ids=["prove", "train_mini"])
def test_a_folder_in_use_is_refused(command: click.Command, tmp_path: Path) -> None:
    with RunLock(tmp_path) as held:
        result = CliRunner().invoke(command, ["--brief", "--out", str(tmp_path)])
        assert result.exit_code == 2, result.output
        assert f"process {os.getpid()} on {socket.gethostname()}" in result.stderr
        assert list(tmp_path.iterdir()) == [held.path]
