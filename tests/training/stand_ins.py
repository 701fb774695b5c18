"""What tests run in processes of their own, so that they can be killed."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

import ttd.files
from ttd.training.config import from_dict
from ttd.training.dataset import StepData
from ttd.training.signals import Stopped
from ttd.training.trainer import Trainer, train


def train_slowly(settings: dict[str, dict[str, object]], out: str, pause: float, write_pause: float) -> None:
    """Train with pauses in every step and in every write, so that a kill may hit any of them."""
    torch.set_num_threads(1)
    to_disk, advance = ttd.files._to_disk, Trainer.advance

    def slow_to_disk(path: Path) -> None:
        time.sleep(write_pause)
        to_disk(path)

    def slow_advance(self: Trainer, data: StepData, signal: int = 0) -> object:
        time.sleep(pause)
        return advance(self, data, signal)

    ttd.files._to_disk = slow_to_disk
    Trainer.advance = slow_advance  # type: ignore[assignment, method-assign]
    try:
        train(from_dict(settings), out, quiet=True)
    except Stopped as stopped:
        sys.exit(128 + stopped.number)


def train_and_tell(settings: dict[str, dict[str, object]], out: Path, rank: int, port: int, crash_at: int) -> None:
    """One of two processes, with the environment that torchrun sets; notes the pairs of every step."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    out.mkdir(exist_ok=True)
    advance = Trainer.advance

    def telling(self: Trainer, data: StepData, signal: int = 0) -> object:
        if self.step == crash_at:
            os.kill(os.getpid(), 9)
        result = advance(self, data, signal)
        with (out / f"items-{self.place.rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "items": data.items}) + "\n")
        return result

    Trainer.advance = telling  # type: ignore[assignment, method-assign]
    train(from_dict(settings), out, quiet=True)
