"""What a run would do, without a step of it: `ttd train --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass

from ttd.data.sources import PairSource
from ttd.encoders.base import Encoder
from ttd.encoders.registry import load_encoder
from ttd.training.config import Config
from ttd.training.dataset import Steps
from ttd.training.lora import Adapter, parameter_counts


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
    """

    model: str
    method: str | None
    parameters: int
    trained: int
    pairs: int
    files: int
    steps: int
    batch: int

    def __str__(self) -> str:
        whole = self.parameters + self.trained
        block = f", last block {self.method}" if self.method else ""
        return (
            f"model: {self.model}{block}, {self.parameters / 1e6:.1f} M parameters; with the adapter "
            f"{whole / 1e6:.1f} M, of which {self.trained:,} are trained\n"
            f"data:  {self.pairs:,} pairs in {self.files:,} files\n"
            f"run:   {self.steps:,} steps of {self.batch} pairs"
        )


def plan(config: Config) -> Plan:
    """Open the data, load the model and attach the adapter, on the CPU; nothing is written.

    Raises:
        InputError: settings or data that cannot be used.
        ModelError: the base cannot be loaded.
    """
    data = config.data
    source = PairSource(data.sources, images=data.images or None, keep=data.keep or None, tags=data.tags or None)
    steps = Steps(source, config)
    encoder: Encoder = load_encoder(
        config.model.name, method=config.model.method or None, device="cpu", dtype="float32"
    )
    adapter = Adapter(encoder, config.model, config.run.seed, config.loss)
    parameters, trained = parameter_counts(encoder)
    trained += len(adapter.calibration_parameters())
    return Plan(
        model=config.model.name,
        method=encoder.method_name,
        parameters=parameters,
        trained=trained,
        pairs=len(source),
        files=len(source.shards),
        steps=len(steps),
        batch=config.optimiser.batch,
    )
