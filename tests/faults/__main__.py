"""Damages files and reads them, a child process each: `python -m tests.faults --cases N --seed S [FORMAT ...]`.

The last line of the output is JSON: by format how often each thing came out. A case that must not be is shown with its
format and number, by which it can be repeated alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

from tests.faults.formats import FORMATS, Format
from tests.faults.mutations import BYTES
from ttd.cli.errors import sentence

MEMORY, SECONDS, STARTED = 1 << 30, 20, 60
GOOD = ("refused", "skipped", "equal", "different")
BAD = ("sealed and different", "memory", "traceback", "signal", "escape")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone")
    given = parser.parse_args()
    logging.disable()
    tqdm.monitor_interval = 0  # no thread beside those that read
    torch.set_num_threads(1)
    os.fsync = lambda number: None  # thousands of them take a minute, and nobody cuts the power
    counts = {name: run(name, given.cases, given.seed, given.only) for name in given.formats or FORMATS}
    print(json.dumps(counts))


def run(name: str, cases: int, seed: int, only: int | None = None) -> dict[str, int]:
    """All cases of a format; how often each thing came out, and of how many the container stayed valid."""
    counts: Counter[str] = Counter()
    one = FORMATS[name]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "secret.txt").write_text("secret")
        (root / "case").mkdir()
        path = one.make(root / "case")
        files = {file: file.read_bytes() for file in (root / "case").rglob("*") if file.is_file()}
        right = one.read(root / "case")
        whole = files[path]
        before = _outside(root)
        for case in range(cases) if only is None else [only]:
            draws = random.Random(f"{name} {seed} {case}")
            valid = one.leaf is not None and case % 2 == 0
            damaged = (one.leaf if valid and one.leaf else draws.choice(BYTES))(whole, draws)
            for file in [*(root / "case").rglob("*")]:
                if file.is_file() and file not in files:
                    file.unlink()
            for file, content in files.items():
                file.write_bytes(content)
            path.write_bytes(damaged)
            outcome, detail = _in_a_child(one, root / "case", right, sealed=one.sealed and not valid)
            if _outside(root) != before:
                outcome, detail = "escape", "something outside of the folder was written"
            counts[outcome] += 1
            counts["valid"] += valid
            if outcome in BAD or only is not None:
                print(f"{name} {case} (seed {seed}): {outcome}: {detail}", flush=True)
    return dict(counts)


def _in_a_child(one: Format, folder: Path, right: object, *, sealed: bool) -> tuple[str, str]:
    for _ in range(5):
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reads)
            os.write(writes, b".")
            os.write(writes, "\0".join(_case(one, folder, right, sealed))[:4000].encode("utf-8", "backslashreplace"))
            os._exit(0)
        os.close(writes)
        if select.select([reads], [], [], STARTED)[0]:
            break
        os.kill(child, signal.SIGKILL)  # a library's thread held a lock at the fork: not the file's fault
        os.waitpid(child, 0)
        os.close(reads)
    else:
        return "signal", "five children hung before they read anything"
    with os.fdopen(reads, "rb") as pipe:
        said = pipe.read().decode()[1:]
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "signal", signal.Signals(os.WTERMSIG(status)).name
    outcome, _, detail = said.partition("\0")
    return outcome or "traceback", detail


def _case(one: Format, folder: Path, right: object, sealed: bool) -> tuple[str, str]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of its own time: a busy machine is not a fault of a file
    signal.alarm(30 * SECONDS)
    try:
        found = one.read(folder)
    except MemoryError:
        return "memory", ""
    except BaseException as error:
        told = sentence(error)
        if told is None or "Not enough memory" in told[0]:
            return "traceback", "".join(traceback.format_exception(error)[-3:])
        return "refused", told[0]
    shown = repr(found)
    if "secret'" in shown or ("/etc/passwd" in shown and "root:" in shown):
        return "escape", shown[:200]
    if found == right:
        return "equal", ""
    if isinstance(found, list) and any(row[:1] == ("skipped",) for row in found if isinstance(row, tuple)):
        return "skipped", ""
    return ("sealed and different" if sealed else "different"), shown[:300]


def _outside(root: Path) -> list[tuple[str, int, int]]:
    """All that lies beside the folder of the cases."""
    beside = [path for path in root.iterdir() if path.name != "case"]
    return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in beside)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
