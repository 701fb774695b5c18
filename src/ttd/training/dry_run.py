"""`ttd train --dry-run`: a run's size and time, estimated without writing anything."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ttd.data.estimate import duration, megabytes
from ttd.data.sources import PairSource
from ttd.encoders.base import Encoder
from ttd.encoders.registry import load_encoder
from ttd.training.config import Config
from ttd.training.dataset import Steps
from ttd.training.distributed import placed
from ttd.training.lora import Adapter, parameter_counts
from ttd.training.trainer import Trainer

STEPS = 5  # that are measured


@dataclass(frozen=True)
class Pace:
    """How fast some steps were, of this process.

    Attributes:
        device: where.
        steps: how many were measured, after one that warms up.
        compute: seconds of a step whose pairs are there.
        reading: seconds to read, decode and augment a step's pairs by one process.
        readers: processes that read beside the step, as far as there are processors; 0: it reads by itself.
        size: bytes of the adapter and all checkpoints that are kept.
    """

    device: str
    steps: int
    compute: float
    reading: float
    readers: int
    size: int

    @property
    def seconds(self) -> float:
        """A step's time: the slower of computing and reading, or both one after the other."""
        return max(self.compute, self.reading / self.readers) if self.readers else self.compute + self.reading


@dataclass(frozen=True)
class Plan:
    """A run that was not started.

    Attributes:
        model: name of the base.
        method: the last block that would be trained; None where the base has one form only.
        parameters: of the base.
        trained: of the adapter.
        pairs, files: of the data, after the keep-list.
        steps, batch: optimiser steps, and pairs in each over all devices.
        pace: how fast some steps were; None where none was tried.
    """

    model: str
    method: str | None
    parameters: int
    trained: int
    pairs: int
    files: int
    steps: int
    batch: int
    pace: Pace | None = None

    def __str__(self) -> str:
        whole = self.parameters + self.trained
        block = f", last block {self.method}" if self.method else ""
        return (
            f"model: {self.model}{block}, {self.parameters / 1e6:.1f} M parameters; with the adapter "
            f"{whole / 1e6:.1f} M, of which {self.trained:,} are trained\n"
            f"data:  {self.pairs:,} pairs in {self.files:,} files\n"
            f"run:   {self.steps:,} steps of {self.batch} pairs" + (f"\n{self._time()}" if self.pace else "")
        )

    def _time(self) -> str:
        pace = self.pace
        assert pace is not None
        each = pace.seconds
        rate = f"{each:.2f} s a step, {self.batch / each:,.1f} pairs a second"
        return (
            f"time:  {duration(each * self.steps)} on {pace.device}: {rate} (mean of {pace.steps}: {pace.compute:.2f} "
            f"s for the step, {pace.reading:.2f} s for one process to read its pairs; {pace.readers} do so beside it)\n"
            f"disk:  about {megabytes(pace.size)} of checkpoints and adapter"
        )


def plan(config: Config, measure: int = 0) -> Plan:
    """Open the data, load the model and attach the adapter; nothing is written.

    Args:
        config: of the run.
        measure: how many steps to try on the run's device; 0: none, and everything stays on the CPU.

    Raises:
        InputError: settings or data that cannot be used.
        ModelError: the base cannot be loaded.
    """
    data = config.data
    source = PairSource(data.sources, images=data.images or None, keep=data.keep or None, tags=data.tags or None)
    with placed(config.run.device if measure else "cpu") as place:
        device = place.device if measure else torch.device("cpu")
        encoder: Encoder = load_encoder(
            config.model.name, method=config.model.method or None, device=device, dtype="float32"
        )
        if measure:
            trainer = Trainer(config, Path(), source, encoder, place)
            adapter, steps = trainer.adapter, trainer.steps
        else:
            adapter, steps = Adapter(encoder, config.model, config.run.seed, config.loss), Steps(source, config)
        parameters, trained = parameter_counts(encoder)
        trained += len(adapter.calibration_parameters())
        pace = _pace(trainer, measure, trained) if measure else None
    return Plan(
        model=config.model.name,
        method=encoder.method_name,
        parameters=parameters,
        trained=trained,
        pairs=len(source),
        files=len(source.shards),
        steps=len(steps),
        batch=config.optimiser.batch,
        pace=pace,
    )


def _pace(trainer: Trainer, count: int, trained: int) -> Pace:
    """Reads and computes steps one after the other, in this process; the first one does not count if there are more."""
    reading, compute = [], []
    for number in range(min(count + 1, len(trainer.steps))):
        start = time.perf_counter()
        data = trainer.steps[number]
        middle = time.perf_counter()
        trainer.advance(data)
        compute.append(time.perf_counter() - middle)
        reading.append(middle - start)
    if len(compute) > 1:
        reading, compute = reading[1:], compute[1:]
    options, number = trainer.config, len(compute)
    readers = min(options.data.workers, os.cpu_count() or 1)
    # A checkpoint holds the adapter and two moments of each of its parameters, in float32.
    size = 4 * trained * (1 + 3 * options.run.keep_checkpoints)
    return Pace(str(trainer.place.device), number, sum(compute) / number, sum(reading) / number, readers, size)
