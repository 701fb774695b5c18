"""Processes of a training: one or many (torchrun sets the environment), signals that are obeyed
between two steps, and switches that change time and memory but not what is computed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ttd.errors import InputError
from ttd.inference.device import find_device

PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Process:
    """This process among all.

    Attributes:
        rank, world: number of this process, number of processes.
        device: where it computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """The sums of each value over all processes."""
        if self.world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def gathered(self, value: object) -> list[object]:
        """Every process's value, by rank; for small things now and then."""
        if self.world == 1:
            return [value]
        found: list[object] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def placed(device: str = "") -> Iterator[Process]:
    """Join the processes that torchrun started, NCCL on CUDA and gloo elsewhere; alone without torchrun.

    Args:
        device: see `ttd.inference.device.find_device`; several processes cannot share MPS.

    Raises:
        InputError: there is no such device, or several processes ask for MPS.
    """
    chosen = find_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Process(0, 1, chosen)
        return
    if chosen.type == "mps":
        raise InputError("several processes cannot train on mps: leave torchrun out, or set run.device=cpu")
    if chosen.type == "cuda":
        chosen = find_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Process(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()


def sums(values: Sequence[torch.Tensor]) -> list[float]:
    """Scalars on a device -> numbers, in one transfer."""
    return [float(value) for value in torch.stack([v.float() for v in values]).tolist()]


def recompute_blocks(backbone: nn.Module) -> int:
    """Let every transformer block compute its inner activations again in the backward pass.

    Returns:
        how many blocks do.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return len(blocks)


def compile_blocks(backbone: nn.Module) -> int:
    """Compile every transformer block with `torch.compile`, in place; the first steps take minutes longer.

    Returns:
        how many blocks are.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.compile()
    return len(blocks)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Inside the block torch refuses algorithms whose result may differ from run to run on the same machine."""
    if not wanted:
        yield
        return
    # cuBLAS reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal ended the run early; everything is saved. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """Inside the block signals are noted in `number`; a second one acts at once, as it would outside.

    Outside the main thread nothing can be noted.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            before = self._before[number]
            signal.signal(number, before)
            signal.raise_signal(number)
        self.number = number
