"""Does the proof's work: bases measured, every run trained and measured for every seed, in a few processes.

What is finished is kept in the folder and a training that was interrupted goes on, so the same call continues.
"""

from __future__ import annotations

import json
import math
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

import ttd
from experiments.prove.inputs import fit_pair, prepare, wrong_share
from experiments.prove.measured import measure
from experiments.prove.plan import RUNS, SEEDS, ProofRun
from experiments.prove.rows import FITTED, PRUNED, read_numbers, row_of, write_numbers
from ttd.errors import InputError, TTDError
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.schema import any_text, count, fields
from ttd.training.distributed import Stopped
from ttd.training.export import RESULTS, write_model_card

WEIGHTS = "adapter_model.safetensors"
TERMINATED = 143
_LOOK_EVERY = 2.0  # seconds
_PROOF = fields(
    {**dict.fromkeys(("steps", "pairs", "test", "validation"), count), "base": any_text, "model": any_text},
    others=False,
)


@dataclass(frozen=True)
class Size:
    """How much the proof does.

    Attributes:
        steps: of every training whose run sets none of its own; 0: the config's.
        pairs: scenes of each kind of training data.
        test, validation: scenes to measure on and to choose thresholds on.
    """

    steps: int = 0
    pairs: int = 9600
    test: int = 512
    validation: int = 256


@dataclass(frozen=True)
class Proof:
    """One base model, and a folder for its data, adapters and rows.

    Attributes:
        folder: of the proof.
        model: name or folder of the base.
        size: how much is done.
    """

    folder: Path
    model: str = "mini"
    size: Size = Size()

    @property
    def data(self) -> Path:
        """The folder of scenes."""
        return self.folder / "data"

    @property
    def rows(self) -> Path:
        """The folder of finished rows."""
        return self.folder / "rows"


@dataclass(frozen=True)
class Job:
    """One training with one seed, and its measuring."""

    proof: Proof
    run: ProofRun
    seed: int

    @property
    def out(self) -> Path:
        """The adapter's folder."""
        return self.proof.folder / "runs" / f"{self.run.name}-{self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is trained and measured."""
        return (self.proof.rows / f"{self.run.name}-{self.seed}.json").exists()

    @property
    def settings(self) -> list[str]:
        """What the training changes in its config; the data apart."""
        steps = [f"optimiser.steps={self.proof.size.steps}"] if self.proof.size.steps else []
        pair = read_numbers(self.proof.rows / FITTED.format(self.run.method)) if self.run.fitted else {}
        fitted = [f"loss.{name}={value:g}" for name, value in pair.items()]
        return [f"model.method={self.run.method}", f"run.seed={self.seed}", *steps, *self.run.settings, *fitted]


def prove(proof: Proof, *, runs: Sequence[ProofRun] = RUNS, seeds: Sequence[int] = SEEDS, workers: int = 2) -> None:
    """Does all that is not done yet, seed by seed; `experiments.prove.tables` reads the rows then.

    Raises:
        InputError: the folder holds a proof of another size.
    """
    _settle(proof)
    prepare(proof.data, proof.model, tuple(runs), proof.size.pairs)
    if any(run.keep for run in runs):
        write_numbers(wrong_share(proof.data), proof.rows / PRUNED)
    for method in dict.fromkeys(run.method for run in runs if run.fitted):
        if not (path := proof.rows / FITTED.format(method)).exists():
            write_numbers(fit_pair(proof.model, method, proof.data), path)
    for method in dict.fromkeys(run.method for run in runs):
        _measure_base(proof, method)
    jobs = [Job(proof, run, seed) for seed in seeds for run in runs]
    left = [job for job in jobs if not job.done]
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), desc="runs", disable=None) as bar:
        _spread(left, workers, bar)


def train_and_measure(job: Job) -> None:
    """One job, on one thread, so that the workers share the cores and a seed gives the same adapter."""
    import torch

    torch.set_num_threads(1)
    if not (job.out / WEIGHTS).exists():  # a finished adapter is measured as it is, also by a later version
        _train(job)
    size, run = job.proof.size, job.run
    model = ttd.load(job.proof.model, method=run.method, adapter=str(job.out))
    measured = measure(model, job.proof.data, size.test, size.validation)
    known = {name: value for name, value in measured.numbers.items() if math.isfinite(value)}
    write_file(job.out / RESULTS, json.dumps({f"{size.test:,} test scenes": known}, indent=1) + "\n")
    write_model_card(job.out)
    row = row_of(
        measured,
        run=run.name,
        seed=job.seed,
        base=read_json(job.proof.folder / "proof.json", _PROOF)["base"],
        method=run.method,
        config=run.config,
        settings=job.settings,
        scenes={"training": size.pairs, "test": size.test, "validation": size.validation},
    )
    row.write(job.proof.rows)


def _train(job: Job) -> None:
    from ttd.training.config import read_config
    from ttd.training.trainer import train  # loads PEFT and transformers

    run, data = job.run, job.proof.data
    settings = [
        f"model.name={json.dumps(job.proof.model)}",
        f"data.sources={json.dumps([str(data / run.data)])}",
        "run.watch_every=0",
        *job.settings,
    ]
    if run.keep:
        settings.append(f"data.keep={json.dumps(str(data / run.keep))}")
    if run.tags:
        settings.append(f"data.tags={json.dumps(str(data / run.tags))}")
    train(read_config(run.config, settings), job.out, command="python -m experiments.prove", quiet=True)


def _settle(proof: Proof) -> None:
    """One folder holds one proof: its size and its base."""
    base = ttd.load(proof.model).encoder.fingerprint()
    facts = {**asdict(proof.size), "base": base, "model": proof.model}
    path = proof.folder / "proof.json"
    if path.exists():
        if read_json(path, _PROOF) != facts:
            raise InputError(f"{proof.folder} holds a proof of another size or base model: choose another --out")
        return
    write_file(path, json.dumps(facts, indent=1) + "\n")


def _measure_base(proof: Proof, method: str) -> None:
    """The model before training, by one last block."""
    if (proof.rows / f"base.{method}.json").exists():
        return
    model = ttd.load(proof.model, method=method)
    name, base = f"base.{method}", model.encoder.fingerprint()
    scenes = {"training": 0, "test": proof.size.test, "validation": proof.size.validation}
    row = row_of(
        measure(model, proof.data, proof.size.test, proof.size.validation),
        run=name, seed=None, base=base, method=method, config="", settings=[], scenes=scenes,
    )  # fmt: skip
    row.write(proof.rows)


def _spread(jobs: Sequence[Job], workers: int, bar: tqdm[Any]) -> None:
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


def _work(jobs: Sequence[Job]) -> None:
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
