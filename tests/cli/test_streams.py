"""What is printed where the terminal's encoding has no such characters, or where nobody reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A command that prints what no Windows code page has, and a name that is not UTF-8.
PRINTS = """
import sys, click
from ttd.cli.errors import PipeClosed, exit_code
@click.command()
@click.option("--out")
@click.option("--more", is_flag=True)
def cli(out, more):
    try:
        click.echo("\\u2588\\u2588\\u258f| caf\\u00e9 \\u72ac " + chr(0xDCFF))
        for _ in range(20000 if more else 0):
            click.echo("0123456789")
        click.echo('["\\U0001f600"]')
    except BrokenPipeError:
        raise PipeClosed from None  # as `ttd.cli.CommandGroup`
    if more:
        print("at the end", file=sys.stderr)
sys.exit(exit_code(lambda: cli(sys.argv[1:], standalone_mode=False)))
"""


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": str(options.pop("encoding", "utf-8"))}
    command = [sys.executable, "-c", PRINTS, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "cp1252:strict"])
def test_every_text_can_be_printed_in_every_encoding(encoding: str) -> None:
    done = run(encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert lines[0].startswith("\u2588\u2588" if encoding == "utf-8" else "## |")
    assert ("\u72ac" if encoding == "utf-8" else "\\u72ac") in lines[0]
    assert json.loads(lines[1]) == ["\U0001f600"]


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
@pytest.mark.parametrize(("out", "code"), [(["--out", "x"], 0), ([], 141)])
def test_a_reader_that_goes_away_fails_only_what_has_no_other_result(out: list[str], code: int) -> None:
    command = f"set -o pipefail; '{sys.executable}' -c \"$PRINTS\" --more {' '.join(out)} | true"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PRINTS": PRINTS, "PYTHONIOENCODING": "utf-8"}, capture_output=True
    )
    assert done.returncode == code
    assert done.stderr == (b"at the end\n" if out else b"")


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors as a POSIX shell does")
def test_a_stdout_that_is_closed_is_no_error_and_no_file_gets_what_is_printed(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    code = PRINTS.replace('print("at the end"', f'f = open({str(shown)!r}, "w"); print("at the end"')
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$CODE\" --more >&-"], env={**os.environ, "CODE": code}
    )
    assert done.returncode == 0
    assert shown.read_text() == ""
