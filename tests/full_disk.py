"""Jobs that write tensors, on a disk that takes only so much: `python -m` with FOLDER, INPUTS and MODE, by itself.

MODE "limit": no file may be larger than a number of bytes, which goes through the sizes of all files of the job. MODE
"disk": FOLDER lies on a small disk, which is filled up so far that each part of the job's bytes is what still fits.
Prints for every attempt the error's sentence, its exit code, and what the job left behind.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_models import tiny_clip, tiny_tcl, tiny_tcl_tensors, write_tiny_clip
from ttd.cli.errors import sentence
from ttd.encoders.loading.downloads import convert_to_safetensors
from ttd.training import checkpoint
from ttd.training.config import Model
from ttd.training.export import merge
from ttd.training.lora import Adapter

Job = Callable[[Path], Any]


def jobs(inputs: Path) -> dict[str, Job]:
    """By name, each with the place that it is to write."""
    base, weights = inputs / "base", inputs / "tcl.safetensors"
    write_tiny_clip(base)
    save_file(tiny_tcl_tensors(), weights)
    torch.save({"model": tiny_tcl_tensors()}, inputs / "tcl.pth")
    adapters = {
        "clip": Adapter(tiny_clip(), Model(name=str(base)), 0),
        "tcl": Adapter(tiny_tcl(), Model(name="tcl"), 0),
    }
    for name, adapter in adapters.items():
        adapter.save(inputs / name)
    return {
        "merge": lambda out: merge(base, inputs / "clip", out),
        "merge tcl": lambda out: merge(weights, inputs / "tcl", out),
        "adapter": adapters["clip"].save,
        "checkpoint": lambda out: checkpoint.save(out, 1, adapters["clip"].state(), keep=1),
        "convert": lambda out: convert_to_safetensors(inputs / "tcl.pth", out / "tcl.safetensors"),
    }


def attempt(job: Job, out: Path) -> dict[str, Any]:
    """Runs a job and says what came of it."""
    try:
        job(out)
        told = ("", 0)
    except Exception as error:
        told = sentence(error) or (f"{type(error).__name__}: {error}", 1)
    left = [str(path.relative_to(out.parent)) for path in out.parent.rglob("*") if path.is_file()]
    shutil.rmtree(out, ignore_errors=True)
    return {"said": told[0], "code": told[1], "left": sorted(left)}


def limited(job: Job, out: Path) -> list[dict[str, Any]]:
    """With a limit just below the size of each file in turn."""
    job(out)
    sizes = sorted({path.stat().st_size for path in out.rglob("*") if path.is_file()})
    shutil.rmtree(out)
    found = []
    for size in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, resource.RLIM_INFINITY))
        found.append(attempt(job, out))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found


def filled(job: Job, out: Path, filler: Path) -> list[dict[str, Any]]:
    """On a disk with room for none, a part, and nearly all of what the job writes."""
    job(out)
    needed = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    found = []
    for share in (0.0, 0.3, 0.6, 0.9):
        out.parent.mkdir(exist_ok=True)
        room = shutil.disk_usage(filler.parent).free - int(share * needed)
        filler.write_bytes(bytes(room))
        found.append(attempt(job, out))
        filler.unlink()
    return found


def main(folder: Path, inputs: Path, mode: str) -> None:
    """Prints a JSON object: job -> attempts."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found = {}
    for name, job in jobs(inputs).items():
        out = folder / "place" / "out"
        found[name] = limited(job, out) if mode == "limit" else filled(job, out, folder / "filler")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
