"""A disk that is full, or takes no larger file: one sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = {"merge", "merge tcl", "adapter", "checkpoint", "convert"}


def check(run: subprocess.CompletedProcess[str], said: str, place: Path) -> None:
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() == JOBS
    for name, attempts in found.items():
        assert attempts
        for attempt in attempts:
            assert (attempt["code"], attempt["left"]) == (2, []), (name, attempt)
            assert said in attempt["said"].lower(), (name, attempt)
            assert str(place) in attempt["said"], (name, attempt)


def command(folder: Path, inputs: Path, mode: str) -> list[str]:
    return [sys.executable, "-m", "tests.full_disk", str(folder), str(inputs), mode]


@pytest.mark.slow
def test_files_that_may_not_grow(tmp_path: Path) -> None:
    run = subprocess.run(command(tmp_path / "out", tmp_path, "limit"), capture_output=True, text=True, timeout=600)
    check(run, "takes no larger file", tmp_path / "out")


@pytest.mark.slow
def test_a_disk_without_room(tmp_path: Path) -> None:
    """A file system in memory, seen by this process alone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=64m none '{disk}'"
    if shutil.which("unshare") is None or subprocess.run([*own, mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    script = f'{mount} && exec "$@"'
    run = subprocess.run(
        [*own, script, "sh", *command(disk, tmp_path, "disk")], capture_output=True, text=True, timeout=600
    )
    check(run, "disk", disk)
    assert "is full" in run.stdout
