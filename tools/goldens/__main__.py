"""Says what a change of the code changed in its results: `make goldens BASE=COMMIT`.

    python -m tools.goldens COMMIT [--only NAME ...] [--exact]

Runs the goldens of `plan.py` in a worktree of COMMIT and in this tree, each side in processes of its own with one
thread, on the same inputs, and compares file by file. One line per golden; exit code 1 where one differs. The base's
results stay in out/goldens/COMMIT, so a second run costs the new side alone. COMMIT's own table of renames says how it
spells things.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.goldens.compare import Comparison
from tools.goldens.plan import ADAPTER, GOLDENS, IGNORED, SCORES, SETUP, Golden
from tools.goldens.renames import TABLE, Renames
from tools.goldens.side import DONE

ROOT = Path(__file__).resolve().parents[2]
SCENES = (
    "scenes write {inputs}/scenes --count 640",
    "scenes write {inputs}/tagmask --format tagmask --split test --count 6 --start 9",
)


def git(*arguments: str) -> str:
    """Git's answer about this repository."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """The files of a commit, until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="goldens-") as folder:
        tree = Path(folder, "base")
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def environment(tree: Path, cache: Path) -> dict[str, str]:
    """One thread, no network, this tree's code."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    fixed = {"PYTHONPATH": str(tree / "src"), "TTD_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    return {**os.environ, **threads, **fixed}


def write_inputs(folder: Path, tree: Path, renames: Renames) -> None:
    """Fills `folder`: scenes by the base's command, the rest by `inputs.py`; whole or not at all."""
    part = folder.with_name("inputs.part")
    for path in (part, folder):
        shutil.rmtree(path, ignore_errors=True)
    part.mkdir(parents=True)
    base = environment(tree, part.with_name("cache"))
    for line in SCENES:
        arguments = [word.replace("{inputs}", str(part)) for word in renames.command(line)]
        subprocess.run([sys.executable, *arguments], env=base, check=True, stdout=subprocess.DEVNULL)
    ours = {**environment(ROOT, part.with_name("cache")), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-m", "tools.goldens.inputs", str(part)], env=ours, cwd=ROOT, check=True)
    part.rename(folder)


def key(golden: Golden, commands: Sequence[Sequence[str]]) -> str:
    """Changes with all that decides a side's results, but its code."""
    return hashlib.sha256(json.dumps([golden.name, list(map(list, commands))]).encode()).hexdigest()[:16]


def commands(golden: Golden, renames: Renames) -> list[list[str]]:
    """A golden's commands as one tree spells them, for a folder that holds `inputs`."""
    return [[word.replace("{inputs}", "inputs") for word in renames.command(line)] for line in golden.commands]


def record(folder: Path, golden: Golden) -> dict[str, Any]:
    """What `side.py` noted about a golden; empty where it did not run."""
    path = folder / golden.name / DONE
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def good(found: dict[str, Any], golden: Golden) -> bool:
    """Whether all commands ended well."""
    return bool(found) and all(code in golden.codes for code in found["codes"])


def start(side: str, tree: Path, renames: Renames, folder: Path, goldens: Sequence[Golden]) -> subprocess.Popen[bytes]:
    """A process that runs goldens in `tree` and leaves their files in `folder`/SIDE.

    Each side has a copy of the inputs: commands may write beside what they read, such as the index of a shard.
    """
    out = folder / side
    shutil.rmtree(out / "inputs", ignore_errors=True)
    shutil.copytree(folder / "inputs", out / "inputs")
    listed = []
    for golden in goldens:
        lines = commands(golden, renames)
        listed.append({"name": golden.name, "key": key(golden, lines), "commands": lines})
    job = folder / f"{side}.json"
    setup = renames.command(SETUP) if any(ADAPTER in line for golden in goldens for line in golden.commands) else []
    content = {"side": side, "tree": str(tree), "out": str(out), "goldens": listed}
    job.write_text(json.dumps({**content, "setup": [word.replace("{inputs}", "inputs") for word in setup]}))
    program = [sys.executable, str(Path(__file__).with_name("side.py")), str(job)]
    return subprocess.Popen(program, env=environment(tree, out / "cache"), cwd=folder)


def report(folder: Path, renames: tuple[Renames, Renames], golden: Golden, exact: bool) -> bool:
    """Prints one golden's line; False where its sides differ."""
    base, new = folder / "base", folder / "new"
    found = [record(side, golden) for side in (base, new)]
    times = " / ".join(f"{one['seconds']:.1f}" if one else "-" for one in found) + " s"
    for side, one in zip((base, new), found, strict=True):
        if not good(one, golden):
            return _line(golden, f"missing: {_failure(side, golden, one)}", times, False)
    sides = [(side / golden.name, words) for side, words in zip((base, new), renames, strict=True)]
    loose, close = (
        Comparison(sides[0], sides[1], ignored=IGNORED, fields=golden.fields).run(patterns)
        for patterns in (golden.files, golden.closer)
    )
    if found[0]["codes"] != found[1]["codes"]:
        loose.wrong.append(f"exit codes {found[1]['codes']}, not {found[0]['codes']}")
    limits = [(loose, 0.0 if exact else golden.tolerance), (close, 0.0 if exact else SCORES)]
    added = loose.added + close.added
    more = f", {len(added)} added ({added[0]} ...)" if added else ""
    if bad := [text for difference, limit in limits if (text := difference.brief(limit))]:
        return _line(golden, f"different: {'; '.join(bad)}{more}", times, False)
    if near := [(difference, limit) for difference, limit in limits if difference.largest]:
        texts = [f"{limit:g}: at most {difference.largest:.3g} at {difference.where}" for difference, limit in near]
        return _line(golden, f"equal within {', and within '.join(texts)}{more}", times, True)
    return _line(golden, f"equal to the bit, {loose.compared + close.compared:,} values{more}", times, True)


def _line(golden: Golden, text: str, times: str, passed: bool) -> bool:
    print(f"{golden.name:24} {text}  [{times}]", flush=True)
    return passed


def _failure(side: Path, golden: Golden, found: dict[str, Any]) -> str:
    if not found:
        return f"{side.name} did not run it"
    path = side / golden.name / "stderr"
    lines = path.read_text("utf-8", "replace").strip().splitlines() if path.exists() else []
    return f"exit code {found['codes'][-1]} in {side.name}: {lines[-1] if lines else 'no message'}"


def _chosen(names: Sequence[str]) -> list[Golden]:
    known = [golden.name for golden in GOLDENS]
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"There is no golden {', '.join(unknown)}: choose from {', '.join(known)}.")
    return [golden for golden in GOLDENS if not names or golden.name in names]


def main() -> int:
    """Runs, compares, prints; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.goldens", description="Compare results with a commit's.")
    parser.add_argument("base", help="a commit, such as main or HEAD~1")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this golden; repeatable")
    parser.add_argument("--exact", action="store_true", help="count nothing as equal but the same bits")
    given = parser.parse_args()
    chosen = _chosen(given.only)
    commit = git("rev-parse", "--verify", f"{given.base}^{{commit}}").strip()
    at_base = git("ls-tree", "--name-only", commit, TABLE.relative_to(ROOT).as_posix())
    table = git("show", f"{commit}:{TABLE.relative_to(ROOT).as_posix()}") if at_base else ""
    renames = Renames(table), Renames(TABLE.read_text("utf-8"))
    folder = ROOT / "out" / "goldens" / commit[:12]
    folder.mkdir(parents=True, exist_ok=True)
    stamp, began = folder / "inputs.sha256", time.monotonic()
    digest = _conditions()
    fresh = stamp.exists() and stamp.read_text() == digest
    todo = [golden for golden in chosen if not (fresh and _kept(folder, golden, renames[0]))]
    with contextlib.ExitStack() as stack:
        running = []
        if todo:
            tree = stack.enter_context(worktree(commit))
            if not fresh:
                shutil.rmtree(folder / "base", ignore_errors=True)
                write_inputs(folder / "inputs", tree, renames[0])
                stamp.write_text(digest)
            running.append(start("base", tree, renames[0], folder, todo))
        running.append(start("new", ROOT, renames[1], folder, chosen))
        failed = [process.wait() for process in running]
    if any(failed):
        print("A side ended early, see above.", file=sys.stderr)
    print(f"base {commit[:12]} / this tree; seconds of both beside each golden")
    passed = [report(folder, renames, golden, given.exact) for golden in chosen]
    cpu = sum(record(folder / "new", golden).get("cpu", 0.0) for golden in chosen)
    took = time.monotonic() - began
    print(f"{sum(passed)} of {len(passed)} equal, {took:.0f} s; this tree's commands used {cpu:.0f} s of one core")
    return int(not all(passed))


def _conditions() -> str:
    """A digest of what the base's kept results depend on beside its code: the inputs, the machine and the libraries."""
    libraries = [f"{name} {version(name)}" for name in ("torch", "numpy", "transformers", "peft", "pillow", "scipy")]
    facts = [Path(__file__).with_name("inputs.py").read_text("utf-8"), platform.platform(), sys.version, *libraries]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _kept(folder: Path, golden: Golden, renames: Renames) -> bool:
    """Whether the base's results of an earlier run are there."""
    found = record(folder / "base", golden)
    return good(found, golden) and found["key"] == key(golden, commands(golden, renames))


if __name__ == "__main__":
    sys.exit(main())
