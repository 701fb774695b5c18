"""What the command costs before it does anything, and how it behaves as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from ttd import __version__
from ttd.encoders.loading.catalogue import known_models
from ttd.encoders.methods import known_methods
from ttd.inference.protocols import PROTOCOLS

HEAVY = ("torch", "transformers", "matplotlib", "numpy", "PIL", "scipy", "peft", "tqdm")
METADATA = "importlib.metadata"  # what lists other packages' entries: for a command's own help alone
LOOK = """
import sys
sys.argv = ["ttd", *sys.argv[1:]]
from ttd.cli import main
try:
    main()
except SystemExit:
    pass
print([name for name in %r if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["tag", "--help"], ["segment", "x.png"], ["--version"]])
def test_help_and_wrong_use_import_nothing_heavy(arguments: list[str]) -> None:
    heavy = HEAVY if arguments == ["tag", "--help"] else (*HEAVY, METADATA)
    command = [sys.executable, "-c", LOOK % (heavy,), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


def test_help_names_every_command(run: Run) -> None:
    text = run("--help").stdout
    for name in ("tag", "heatmap", "mask", "segment", "models", "demo"):
        assert f"  {name} " in text
        assert run(name, "--help").exit_code == 0
    assert __version__ in run("--version").stdout


@pytest.mark.parametrize("arguments", [[], ["scenes"]])
def test_a_group_without_a_command_shows_its_commands(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    lines = result.output.splitlines()
    assert lines[0].startswith(f"Usage: ttd {' '.join(arguments)}")
    assert "Commands:" in lines


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m ttd models --json | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=600, check=False)
    assert result.stderr == ""
    assert result.returncode in (0, 141)  # 0 where it had written all before the reader went


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "ttd", "models"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    assert result.returncode == 2
    assert "disk is full" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_models_lists_the_catalogue(run: Run) -> None:
    tables = run("models").stdout.split("\n\n")
    names, methods, protocols = ([line.split()[0] for line in table.splitlines()[2:]] for table in tables)
    assert names == [entry.name for entry in known_models()]
    assert methods == [method.name for method in known_methods()]
    found = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    assert [row["name"] for row in found] == [*names, *methods, *protocols]
    assert protocols == list(PROTOCOLS)
    licences = {row["name"]: row["licence"] for row in found if row["what"] in ("method", "protocol")}
    assert (licences["naclip"], licences["sclip"]) == ("MIT", None)  # SCLIP's repository names none
    assert {"kind", "source", "size", "licence", "what"} <= set(found[0])
