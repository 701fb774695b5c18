"""Runs goldens in one tree: `python tools/goldens/side.py JOB.json`, with that tree's `src` on PYTHONPATH.

Every command runs in a fork of this process, which has loaded the libraries beforehand (some seconds a command) and
nothing of the tree itself: no command sees what another one left behind.
"""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

DONE = "golden.json"


def load_libraries() -> None:
    """What the commands import, as long as it is not part of the tree."""
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import torch
    from transformers import CLIPModel, CLIPTokenizer  # noqa: F401

    torch.set_num_threads(1)


def check_tree(tree: Path) -> None:
    """The `ttd` that would be imported must be the tree's own, or both sides would be one."""
    spec = importlib.util.find_spec("ttd")
    origin = Path(spec.origin or "").resolve() if spec else None
    if origin is None or not origin.is_relative_to(tree.resolve()):
        raise SystemExit(f"`import ttd` finds {origin}, which is not in {tree}.")


def run(arguments: list[str], folder: Path) -> tuple[int, float]:
    """One `python` command in a fork, in `folder`, its output in two files; gives the exit code and CPU seconds."""
    child = os.fork()
    if child == 0:
        _become(arguments, folder)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def _become(arguments: list[str], folder: Path) -> None:
    """Never returns."""
    code = 1
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(stream, number)
    try:
        if arguments[0] == "-c":
            exec(compile(arguments[1], "golden", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [arguments[1], *arguments[2:]]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(job: dict[str, Any]) -> None:
    """Runs all goldens of a job: {"side", "tree", "out", "setup", "goldens": [{"name", "key", "commands"}]}."""
    check_tree(Path(job["tree"]))
    load_libraries()
    if job["setup"] and (code := run(job["setup"], Path(job["out"]))[0]):
        print(f"{job['side']}: {' '.join(job['setup'])} ended with {code}, see {job['out']}/stderr", file=sys.stderr)
    for number, golden in enumerate(job["goldens"], 1):
        folder = Path(job["out"], golden["name"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        inputs = (Path(job["out"], "inputs"), folder / "inputs")
        inputs[0].rename(inputs[1])  # the commands name them relatively, so that both sides' results say the same
        start, codes, used = time.monotonic(), [], 0.0
        for command in golden["commands"]:
            code, seconds = run(command, folder)
            codes.append(code)
            used += seconds
            if code not in (0, 1):
                break
        inputs[1].rename(inputs[0])
        record = {"key": golden["key"], "codes": codes, "cpu": used, "seconds": time.monotonic() - start}
        (folder / DONE).write_text(json.dumps(record))
        print(
            f"{job['side']} {number}/{len(job['goldens'])} {golden['name']} {record['seconds']:.1f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, where `inputs` and `plan` would be found by accident
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
