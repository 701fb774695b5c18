"""Every job that resumes where it stopped: killed with -9 at drawn moments, it ends with an undisturbed run's files.

Moments are drawn among all things that the undisturbed run does to the disk, so each may hit a half written file, an
fsync or a rename. TTD_KILLS sets how many kills a job must survive, TTD_SEED the draw.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import image, write_shards
from tests.faults.commands import run_and_die
from tests.faults.formats import INSTANCES

KILLS, SEED = int(os.environ.get("TTD_KILLS", "3")), int(os.environ.get("TTD_SEED", "0"))


@dataclass(frozen=True)
class JobThatGoesOn:
    """A command, `{...}` standing for the inputs.

    Attributes:
        line: all but the program; writes into the folder `out`.
        code: its exit code.
        program: "ttd" or a module.
        differs: endings of paths whose bytes are not compared: they hold times, or pickles whose bytes depend on which
            objects are one (the adapter that comes of them is compared).
    """

    line: str
    code: int = 0
    program: str = "ttd"
    differs: tuple[str, ...] = ()


JOBS = {
    "tag": JobThatGoesOn("tag {images} --caption dog --model mini --out out"),
    "tag into a file": JobThatGoesOn("tag {images} --caption dog --model mini --batch 1 --out out/words.jsonl"),
    "mask": JobThatGoesOn("mask {images} --caption dog --model mini --out out"),
    "heatmap": JobThatGoesOn("heatmap {images} dog --model mini --format npz --out out"),
    "segment": JobThatGoesOn("segment {images} --tags dog sea --model mini --out out"),
    "eval": JobThatGoesOn("eval tagmask --data {set} --model mini --protocol default --out out"),
    "compare": JobThatGoesOn(
        "compare --benchmark tagmask={set} --model mini --adapter none --adapter mini+ttd --protocol default --out out"
    ),
    "bias": JobThatGoesOn("bias --data {set} --model mini --protocol default --images 0 --out out"),
    "prune": JobThatGoesOn("prune {shards} --model mini --out out"),
    "data tag": JobThatGoesOn("data tag {shards} --model mini --out out"),
    "data tag into shards": JobThatGoesOn("data tag {shards} --model mini --per-shard 2 --shards out"),
    "data pack": JobThatGoesOn("data pack {shards} --per-shard 2 --out out"),
    "data prepare": JobThatGoesOn("data prepare coco-stuff --annotations {stuff} --out out"),
    "data tagmask-from-coco": JobThatGoesOn(
        "data tagmask-from-coco --captions {coco}/captions.json --masks {coco}/instances.json --images {coco} --out out"
    ),
    "calibrate": JobThatGoesOn("calibrate {pairs} --model mini --out out"),
    "scenes write": JobThatGoesOn("scenes write out --count 5 --per-shard 1"),
    "scenes write, TagMask": JobThatGoesOn("scenes write out --count 3 --format tagmask"),
    "train": JobThatGoesOn(
        "train {shards} --model mini --steps 3 --set optimiser.batch=2 --set run.checkpoint_every=1 "
        "--set run.watch_every=1 --set run.device=cpu --set run.log_every=1 --out out",
        differs=("log.jsonl", ".ckpt"),
    ),
    "train_mini": JobThatGoesOn(
        "--brief --out out --threads 1", program="experiments.train_mini", differs=("log.jsonl", ".ckpt")
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from ttd.data.sources import PairSource
    from ttd.scenes import Scenes
    from ttd.scenes.write import write_shards as write_scenes
    from ttd.scenes.write import write_tagmask

    folder = tmp_path_factory.mktemp("inputs")
    write_shards(folder / "shards", [3, 4])
    write_tagmask(Scenes("test"), 3, folder / "set")
    write_scenes(Scenes("test"), 48, folder / "pairs", per_shard=24)
    for name in ("shards", "pairs"):
        PairSource([folder / name])  # the indexes beside the tars: else only the undisturbed run would write them
    (folder / "stuff").mkdir()
    for number in range(4):
        Image.fromarray(np.full((4, 6), number, np.uint8)).save(folder / "stuff" / f"{number}.png")
    coco = {**INSTANCES, "annotations": [a for a in INSTANCES["annotations"] if "iscrowd" not in a]}
    captions = [{"id": n, "image_id": 1 + n % 2, "caption": "a dog by the sea"} for n in range(4)]
    (folder / "coco").mkdir()
    for entry in INSTANCES["images"]:
        (folder / "coco" / entry["file_name"]).write_bytes(image(1))
    (folder / "coco" / "instances.json").write_text(json.dumps(coco))
    (folder / "coco" / "captions.json").write_text(json.dumps({"annotations": captions}))
    names = {name: folder / name for name in ("shards", "set", "stuff", "coco", "pairs")}
    return {name: str(path) for name, path in {**names, "images": folder / "set/images"}.items()}


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that start in a moment: a server that has everything imported forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.faults.commands", "ttd.cli", "ttd.model", "ttd.encoders.clip", "peft", "matplotlib.pyplot"]
    )
    return context


def start(processes: Any, command: list[str], folder: Path, death: int) -> tuple[int, int]:
    """Exit code (negative: the signal), and what was done to the disk, 0 after a kill."""
    ours, its = processes.Pipe(duplex=False)
    process = processes.Process(target=run_and_die, args=(command, str(folder), death, its))
    process.start()
    its.close()
    try:
        calls = ours.recv()
    except EOFError:
        calls = 0
    process.join()
    return process.exitcode, calls


def files(folder: Path, differs: tuple[str, ...]) -> dict[str, bytes]:
    """All files by path, the hidden ones too."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if not name.endswith(differs)}


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize("name", JOBS)
def test_kills_change_nothing(name: str, processes: Any, inputs: dict[str, str], tmp_path: Path) -> None:
    job = JOBS[name]
    command = [job.program, *job.line.format(**inputs).split()]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        (folder / "out").mkdir(parents=True)
    code, calls = start(processes, command, whole, 0)
    assert code == job.code
    wanted = files(whole / "out", job.differs)
    assert wanted
    draw, died = random.Random(f"{name} {SEED}"), 0
    for _ in range(KILLS):
        code, _ = start(processes, command, killed, draw.randint(1, calls))
        if code != job.code:
            assert code == -signal.SIGKILL
            died += 1
    code, _ = start(processes, command, killed, 0)
    assert code == job.code
    print(f"{name}: {died} of {KILLS} kills, among {calls} things done to the disk")
    assert died or not KILLS
    found = files(killed / "out", job.differs)
    assert list(found) == list(wanted)
    assert [path for path in wanted if found[path] != wanted[path]] == []
