"""Does the proof's work: bases measured, every run trained and measured for every seed, in a few processes.

What is finished is kept in the folder and a training that was interrupted goes on, so the same call continues.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.prove.inputs import prepare
from experiments.prove.measured import Measured, measure, validation_miou
from experiments.prove.plan import BASES, BEST, RUNS, ProofRun
from ttd.documents import read_json
from ttd.errors import InputError, TTDError
from ttd.files import whole_file
from ttd.schema import mapping, number
from ttd.training.export import RESULTS, write_model_card
from ttd.training.signals import Stopped

SEEDS = (0, 1, 2)
MEASURED = "measured.json"
TERMINATED = 143
_LOOK_EVERY = 2.0  # seconds


@dataclass(frozen=True)
class Size:
    """How much the proof does.

    Attributes:
        steps: of every training whose run sets none of its own; 0: the config's.
        pairs: scenes of each kind of training data.
        test, validation: scenes to measure on and to choose on.
    """

    steps: int = 0
    pairs: int = 9600
    test: int = 1024
    validation: int = 512


@dataclass(frozen=True)
class TrainingJob:
    """One training with one seed, in `folder`."""

    run: ProofRun
    seed: int
    folder: Path
    method: str
    size: Size

    @property
    def out(self) -> Path:
        """The adapter's folder."""
        return self.folder / "runs" / f"{self.run.name}-{self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is trained and measured."""
        return (self.out / MEASURED).exists()


def prove(
    folder: Path, size: Size, *, runs: Sequence[ProofRun] = RUNS, seeds: Sequence[int] = SEEDS, workers: int = 2
) -> None:
    """Does all that is not done yet; `experiments.prove.tables` reads what is in `folder` then.

    Raises:
        InputError: the folder holds a proof of another size.
    """
    _settle(folder, size)
    prepare(folder / "data", tuple(runs), size.pairs)
    best = _measure_bases(folder, size)
    jobs = [
        TrainingJob(run, seed, folder, best if run.method == BEST else run.method, size)
        for seed in seeds
        for run in runs
    ]
    left = [job for job in jobs if not job.done]
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), desc="runs", disable=None) as bar:
        _spread(left, workers, bar)


def read(folder: Path, name: str, seeds: Sequence[int] = SEEDS) -> list[Measured]:
    """What was measured of a run, one for every seed that is done; of a base, one."""
    if name in BASES:
        return [Measured.read(folder / f"{name}.json")]
    paths = [folder / "runs" / f"{name}-{seed}" / MEASURED for seed in seeds]
    return [Measured.read(path) for path in paths if path.exists()]


def best_method(folder: Path) -> tuple[str, dict[str, float]]:
    """The last block's method with the highest mIoU on validation scenes, and that of all."""
    methods: dict[str, float] = read_json(folder / "methods.json", mapping(number))
    return max(methods, key=lambda name: methods[name]), methods


def train_and_measure(job: TrainingJob) -> None:
    """One job, on one thread, so that the workers share the cores and a seed gives the same adapter."""
    import torch

    import ttd
    from ttd.training.config import read_config
    from ttd.training.trainer import train  # loads PEFT and transformers

    torch.set_num_threads(1)
    run, data = job.run, job.folder / "data"
    settings = [
        f"data.sources={json.dumps([str(data / run.data)])}",
        f"model.method={job.method}",
        f"run.seed={job.seed}",
        "run.watch_every=0",
    ]
    if job.size.steps:
        settings.append(f"optimiser.steps={job.size.steps}")
    settings += run.settings
    if run.keep:
        settings.append(f"data.keep={json.dumps(str(data / run.keep))}")
    if run.tags:
        settings.append(f"data.tags={json.dumps(str(data / run.tags))}")
    train(read_config(run.config, settings), job.out, command="python -m experiments.prove", quiet=True)
    model = ttd.load("mini", method=job.method, adapter=str(job.out))
    measured = measure(model.encoder, job.size.test, job.size.validation)
    with whole_file(job.out / RESULTS) as part:
        part.write_text(json.dumps({f"{job.size.test:,} test scenes": measured.numbers}, indent=1) + "\n", "utf-8")
    write_model_card(job.out)
    measured.write(job.out / MEASURED)


def _settle(folder: Path, size: Size) -> None:
    """One folder holds one proof: its size and its base."""
    import ttd

    facts = {**asdict(size), "base": ttd.load("mini").encoder.fingerprint()}
    path = folder / "proof.json"
    if path.exists():
        if read_json(path) != facts:
            raise InputError(f"{folder} holds a proof of another size or base model: choose another --out")
        return
    with whole_file(path) as part:
        part.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _measure_bases(folder: Path, size: Size) -> str:
    """Measures the model before training; gives the method that is best on validation scenes."""
    import ttd
    from ttd.encoders.methods import method_names

    path = folder / "methods.json"
    if not path.exists():
        found = {
            name: validation_miou(ttd.load("mini", method=name).encoder, size.validation) for name in method_names()
        }
        with whole_file(path) as part:
            part.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    best, _ = best_method(folder)
    for name, method in BASES.items():
        if not (folder / f"{name}.json").exists():
            encoder = ttd.load("mini", method=best if method == BEST else method).encoder
            measure(encoder, size.test, size.validation).write(folder / f"{name}.json")
    return best


def _spread(jobs: Sequence[TrainingJob], workers: int, bar: tqdm[Any]) -> None:
    """Shares jobs out to processes; where one fails or a signal comes, all save what they have and end."""
    context = multiprocessing.get_context("spawn")
    shares = [jobs[number::workers] for number in range(workers)]
    running = [context.Process(target=_work, args=(share,)) for share in shares if share]
    before, failed = bar.n, False
    try:
        for process in running:
            process.start()
        while not failed and any(process.is_alive() for process in running):
            connection.wait([process.sentinel for process in running if process.is_alive()], timeout=_LOOK_EVERY)
            bar.update(before + sum(job.done for job in jobs) - bar.n)
            failed = any(process.exitcode for process in running)
    finally:
        for process in running:
            if process.is_alive():
                process.terminate()
        for process in running:
            process.join()
    if failed:
        raise TTDError("A training failed, see above; what is finished is kept, start the same command again.")


def _work(jobs: Sequence[TrainingJob]) -> None:
    """A process's share. Ctrl-C reaches every process of a terminal: only the first one answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        for job in jobs:
            if not job.done:  # another machine may share the folder
                train_and_measure(job)
    except TTDError as error:
        sys.exit(f"ttd: {error}")
    except Stopped:
        sys.exit(TERMINATED)


def _end_with_parent() -> None:
    """Ends this process when the one that started it was killed, which could not: its run goes on at the next start."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
