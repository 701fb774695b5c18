"""One process or many: who this one is, what all of them know together (torchrun sets the environment)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ttd.device import find_device
from ttd.errors import InputError

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
        device: see `ttd.device.find_device`; several processes cannot share MPS.

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
