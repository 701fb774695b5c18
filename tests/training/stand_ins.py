"""What tests run in processes of their own, so that they can be killed."""

from __future__ import annotations

import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from tests.dying import die_at_disk_call
from tests.threads import use_test_threads
from ttd.training.config import from_dict
from ttd.training.dataset import StepData
from ttd.training.distributed import Stopped
from ttd.training.trainer import Trainer, train


def train_and_die(settings: dict[str, dict[str, object]], out: str, death: int) -> None:
    """Train, and be killed at the `death`-th thing that is done to the disk; 0: never."""
    use_test_threads()
    die_at_disk_call(death)
    train(from_dict(settings), out, quiet=True)


def train_and_hold(settings: dict[str, dict[str, object]], out: str, parent: Connection) -> None:
    """Train; before step 3, say so to the parent and wait for its word; a signal's exit code."""
    use_test_threads()
    advance = Trainer.advance

    def hold(self: Trainer, data: StepData, signal: int = 0) -> object:
        if self.step == 2:
            parent.send("before step 3")
            parent.recv()
        return advance(self, data, signal)

    Trainer.advance = hold  # type: ignore[assignment, method-assign]
    try:
        train(from_dict(settings), out, quiet=True)
    except Stopped as stopped:
        sys.exit(128 + stopped.number)


def train_and_tell(settings: dict[str, dict[str, object]], out: Path, rank: int, port: int, crash_at: int) -> None:
    """One of two processes, with the environment that torchrun sets; notes the pairs of every step."""
    use_test_threads()
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
