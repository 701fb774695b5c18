"""No damage to a file ends in a traceback or a signal, writes or reads elsewhere, or passes a checksum.

`make test-faults FUZZ=20000` runs more cases; SEED=N others.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.faults.__main__ import BAD, GOOD
from tests.faults.formats import FORMATS

CASES = int(os.environ.get("FUZZ", "0")) // len(FORMATS) or 70
SEED = os.environ.get("SEED", "0")


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.timeout(0)
@pytest.mark.skipif(not hasattr(os, "fork") or not os.path.exists("/proc/self/statm"), reason="forks, and asks Linux")
def test_damage_ends_in_a_sentence_or_changes_nothing_silently(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tests.faults", "--cases", str(CASES), "--seed", SEED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    *shown, last = done.stdout.splitlines()
    counts = json.loads(last)
    with capsys.disabled():
        print(f"\n{table(counts)}")
    assert set(counts) == set(FORMATS)
    for name, found in counts.items():
        assert sum(found.get(outcome, 0) for outcome in (*GOOD, *BAD)) == CASES, name
        if FORMATS[name].leaf is not None:
            assert found["valid"] >= 0.3 * CASES, name
    bad = {name: {o: found[o] for o in BAD if found.get(o)} for name, found in counts.items()}
    assert not any(bad.values()), "\n".join(shown)[:6000]


def table(counts: dict[str, dict[str, int]]) -> str:
    """A row for each format, a column for each outcome, and how many containers stayed valid."""
    columns = (*GOOD, *BAD, "valid")
    rows = [("", *columns)]
    rows += [(name, *(str(found.get(column, 0)) for column in columns)) for name, found in counts.items()]
    rows.append(("all", *(str(sum(found.get(column, 0) for found in counts.values())) for column in columns)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
