from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.extras import needs
from ttd.app.space import write_space
from ttd.errors import InputError


def test_a_space_holds_a_package_that_starts_by_itself(tmp_path: Path) -> None:
    needs("app", "gradio")
    folder = tmp_path / "space"
    assert str(folder) in write_space(folder, ["mini"], ["mini+ttd"])
    wanted = (folder / "requirements.txt").read_text().split("\n")
    assert any(line.startswith("torch") for line in wanted)
    assert not any("pytest" in line for line in wanted)
    # The Space's program, which asks for a page: of the copied package, not of this one.
    code = (
        "import sys; sys.argv = ['app.py']; import ttd, ttd.cli.app as app; print(ttd.__file__); "
        "app.app.callback = lambda **given: print(given['models'], given['adapters']); "
        "exec(compile(open('app.py').read(), 'app.py', 'exec'))"
    )
    command, alone = [sys.executable, "-c", code], {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True, check=False)
    expected = [str(folder / "ttd" / "__init__.py"), "('mini',) ('mini+ttd',)"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_a_space_cannot_have_what_lies_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is on this machine"):
        write_space(tmp_path / "space", ["mini"], [str(tmp_path)])
    with pytest.raises(InputError, match="new folder"):
        write_space(tmp_path, ["mini"], [])
