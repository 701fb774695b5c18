from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import signal
import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.data.samples import image, sample, write_tar
from tests.tolerance import TRAINING_STEP, assert_close, assert_same_training, float_tolerance
from tests.training.conftest import tiny_config
from tests.training.stand_ins import train_and_die, train_and_hold, train_and_tell
from ttd.errors import InputError
from ttd.training import checkpoint
from ttd.training.config import Config, Optimiser
from ttd.training.logging import read_log
from ttd.training.objective import NonFiniteLoss
from ttd.training.trainer import learning_rate, train


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


# ------------------------------------------------------------------ one run


def test_a_run_learns_and_leaves_everything(config: Config, tmp_path: Path) -> None:
    finished = train(config, tmp_path / "run", command="ttd train x", quiet=True)
    assert (finished.folder, finished.damaged, finished.world) == (tmp_path / "run", 0, 1)
    log = read_log(tmp_path / "run")
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert sum(entry["images"] for entry in log) == 22
    assert log[-1]["images"] == 2  # the rest of the epoch is not thrown away
    assert_close([entry["loss"] for entry in log], [entry["distill"] + entry["tag"] for entry in log], 4)
    assert all(entry["lr"] == 0.01 and entry["grad_norm"] > 0 for entry in log)
    assert log[-2]["loss"] < log[0]["loss"]
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert record["command"] == "ttd train x"
    assert record["pairs"] == 22
    assert record["config"]["optimiser"]["rate"] == 0.01
    assert {"torch", "peft", "ttd", "python"} <= set(record["versions"])
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000004.ckpt", "step-00000006.ckpt"]


def test_the_same_command_on_a_finished_run_changes_nothing(config: Config, tmp_path: Path) -> None:
    train(config, tmp_path, quiet=True)
    before, log = adapter_bytes(tmp_path), read_log(tmp_path)
    train(config, tmp_path, quiet=True)
    assert adapter_bytes(tmp_path) == before
    assert read_log(tmp_path) == log


@pytest.mark.parametrize("more", [[], ["loss.similarity=calibrated", "loss.w=12", "loss.c=0.2", "loss.learned=true"]])
def test_parts_give_the_same_as_the_whole(base: Path, shards: Path, tmp_path: Path, more: list[str]) -> None:
    """Two epochs with dropout, in one go and stopped after every odd number of steps."""
    options = ["optimiser.epochs=2", "model.dropout=0.3", "run.checkpoint_every=100", *more]
    train(tiny_config(base, shards, *options), tmp_path / "whole", quiet=True)
    for steps in (3, 5, 12):
        train(tiny_config(base, shards, *options, f"optimiser.steps={steps}"), tmp_path / "parts", quiet=True)
    assert adapter_bytes(tmp_path / "parts") == adapter_bytes(tmp_path / "whole")
    losses = [[entry["loss"] for entry in read_log(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12
    cards = [json.loads((tmp_path / name / "ttd.json").read_text("utf-8")) for name in ("whole", "parts")]
    assert cards[0] == cards[1]
    assert ("calibration" in cards[0]) == bool(more)
    if more:  # AdamW moves log w and c by about the rate, 1e-2, at each of 12 steps, and nothing pulls them to 0
        learned, log = cards[0]["calibration"], read_log(tmp_path / "whole")
        assert learned == {name: log[-1][name] for name in ("w", "c")}
        assert 1e-4 < abs(math.log(learned["w"] / 12)) < 0.13
        assert 1e-4 < abs(learned["c"] - 0.2) < 0.13


def test_accumulated_gradients_are_the_batchs(base: Path, shards: Path, tmp_path: Path) -> None:
    for name, size in (("whole", 0), ("parts", 1)):
        options = [f"optimiser.micro_batch={size}", "optimiser.steps=2", "optimiser.clip=1"]
        train(tiny_config(base, shards, *options), tmp_path / name, quiet=True)
    whole, parts = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    assert_same_training(parts, whole, lr=1e-2, steps=2)


def test_recomputing_changes_nothing_and_seeds_do(base: Path, shards: Path, tmp_path: Path) -> None:
    for name, options in (
        ("plain", []),
        ("recomputed", ["run.gradient_checkpointing=true"]),
        ("deterministic", ["run.deterministic=true"]),
        ("other", ["run.seed=1"]),
    ):
        train(tiny_config(base, shards, "optimiser.steps=2", *options), tmp_path / name, quiet=True)
    plain = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    for name in ("recomputed", "deterministic"):
        again = load_file(tmp_path / name / "adapter_model.safetensors")
        assert_same_training(again, plain, lr=1e-2, steps=2)
    assert not torch.are_deterministic_algorithms_enabled()
    assert adapter_bytes(tmp_path / "other") != adapter_bytes(tmp_path / "plain")


def test_another_run_in_the_folder_is_refused(base: Path, shards: Path, tmp_path: Path) -> None:
    train(tiny_config(base, shards, "optimiser.steps=1"), tmp_path, quiet=True)
    before = adapter_bytes(tmp_path)
    for change in ("optimiser.rate=0.5", "run.seed=3", "loss.negatives=2"):
        with pytest.raises(InputError, match=change.partition("=")[0]):
            train(tiny_config(base, shards, change), tmp_path, quiet=True)
    with pytest.raises(InputError, match="pairs was"):
        train(tiny_config(base, shards, f"data.sources=['{shards}/00000.tar']"), tmp_path, quiet=True)
    assert adapter_bytes(tmp_path) == before


# ------------------------------------------------------------------ what goes wrong


def test_damage_is_counted_and_too_much_of_it_stops(base: Path, tmp_path: Path) -> None:
    pairs = {f"{n}": sample(n) for n in range(8)}
    pairs["3"] = {"png": b"nothing", "txt": b"a cat"}
    shard = write_tar(tmp_path / "some.tar", pairs)
    train(tiny_config(base, shard, "data.max_bad_samples=0.2", "optimiser.epochs=2"), tmp_path / "run", quiet=True)
    assert sum(entry["images"] for entry in read_log(tmp_path / "run")) == 14
    report = json.loads((tmp_path / "run" / "damage.json").read_text("utf-8"))
    assert report["damaged"] == 1
    assert report["samples"][0]["key"] == "3"
    with pytest.raises(InputError, match="damaged"):
        train(tiny_config(base, shard, "data.max_bad_samples=0.05"), tmp_path / "strict", quiet=True)


def test_captions_that_are_cut_are_counted_once_over_a_break(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = {f"{n}": {"png": image(n), "txt": b"dog " * (80 if n % 4 == 0 else 5)} for n in range(8)}
    data = write_tar(tmp_path / "pairs.tar", samples)
    train(tiny_config(base, data, "optimiser.steps=1"), tmp_path / "run", quiet=True)
    train(tiny_config(base, data, "optimiser.steps=2"), tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "damage.json").read_text())["truncated_captions"] == 2
    assert sum(entry["truncated_captions"] for entry in read_log(tmp_path / "run")) == 2
    assert "2 captions were longer than the 77 tokens" in caplog.text


def test_a_step_of_damaged_pairs_only_is_no_step(base: Path, tmp_path: Path) -> None:
    broken = {f"{n}": {"png": b"x", "txt": b"a cat"} for n in range(3)}
    shard = write_tar(tmp_path / "bad.tar", broken)
    train(tiny_config(base, shard, "data.max_bad_samples=1"), tmp_path / "run", quiet=True)
    assert read_log(tmp_path / "run")[0]["images"] == 0
    tensors = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert not any(values.any() for name, values in tensors.items() if "lora_B" in name)


def test_a_loss_that_is_not_finite_stops_before_it_harms(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttd import losses

    inner, calls = losses.l_tag, []

    def exploding(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(1)
        return inner(*args, **options) * (torch.inf if len(calls) == 4 else 1)

    monkeypatch.setattr(losses, "l_tag", exploding)
    with pytest.raises(NonFiniteLoss, match=r"step 4: the loss is not finite, for the pairs .*tar:0"):
        train(config, tmp_path, quiet=True)
    monkeypatch.undo()
    train(config, tmp_path, quiet=True)  # goes on from step 2
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_keeps_the_last_checkpoint(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config, tmp_path / "whole", quiet=True)
    write = Path.write_bytes

    def full(self: Path, content: Any) -> int:
        if "step-00000004" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(checkpoint.DiskFull, match="step-00000002"):
        train(config, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    train(config, tmp_path / "run", quiet=True)
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "whole")


# ------------------------------------------------------------------ kills and signals


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that start in a moment: a server that has everything imported forks them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.stand_ins", "ttd.encoders.clip", "peft"])
    return context


def start(processes: Any, target: Callable[..., None], config: Config, out: Path, *more: Any) -> Any:
    settings = json.loads(json.dumps(config.to_dict()))
    process = processes.Process(target=target, args=(settings, str(out), *more))
    process.start()
    return process


@pytest.mark.slow
def test_kills_change_nothing(processes: Any, base: Path, shards: Path, tmp_path: Path) -> None:
    """Killed at drawn moments, at least one of them in the middle of a checkpoint, and started again each time."""
    kills = int(os.environ.get("TTD_KILLS", "4"))
    options = [f"optimiser.epochs={max(4, kills)}", "run.checkpoint_every=1", "model.dropout=0.1"]
    config = tiny_config(base, shards, *options)
    train(config, tmp_path / "whole", quiet=True)
    draw, out, halves = random.Random(0), tmp_path / "killed", 0
    for _ in range(kills):
        process = start(processes, train_and_die, config, out, draw.randint(8, 24))
        process.join()
        assert process.exitcode == -signal.SIGKILL
        halves += len(list((out / "checkpoints").glob(".*.part")))
    process = start(processes, train_and_die, config, out, 0)
    process.join()
    assert process.exitcode == 0
    print(f"{kills} kills, {halves} while a checkpoint was written")
    assert halves
    assert adapter_bytes(out) == adapter_bytes(tmp_path / "whole")
    steps = [[entry["step"] for entry in read_log(tmp_path / name)] for name in ("whole", "killed")]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_leave(processes: Any, base: Path, shards: Path, tmp_path: Path, number: int) -> None:
    config = tiny_config(base, shards, "optimiser.epochs=3", "run.checkpoint_every=1000")
    train(config, tmp_path / "whole", quiet=True)
    ours, its = processes.Pipe()
    process = start(processes, train_and_hold, config, tmp_path / "run", its)
    assert ours.recv() == "before step 3"
    os.kill(process.pid, number)
    ours.send("sent")
    process.join()
    assert process.exitcode == 128 + number
    reached = len(read_log(tmp_path / "run"))
    assert reached == 3  # the step that was under way is finished
    assert (tmp_path / "run" / "checkpoints" / f"step-{reached:08d}.ckpt").is_file()
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    train(config, tmp_path / "run", quiet=True)
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(tmp_path / "whole")


# ------------------------------------------------------------------ two processes


def run_two(processes: Any, config: Config, out: Path, crash_at: int = -1) -> list[int | None]:
    """The exit codes of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = json.loads(json.dumps(config.to_dict()))
    both = [processes.Process(target=train_and_tell, args=(settings, out, rank, port, crash_at)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    return [process.exitcode for process in both]


def test_two_processes_lose_and_double_nothing(processes: Any, base: Path, tmp_path: Path) -> None:
    """22 pairs of which one is damaged, batches of 4 over two processes; killed in step 3, then again to the end."""
    pairs = {f"{n:02d}": sample(n) for n in range(22)}
    pairs["07"] = {"png": b"nothing", "txt": b"a cat"}
    shard = write_tar(tmp_path / "pairs.tar", pairs)
    config = tiny_config(base, shard, "run.checkpoint_every=2", "loss.negatives=1")
    out = tmp_path / "run"
    assert run_two(processes, config, out, crash_at=3) == [-signal.SIGKILL] * 2
    assert run_two(processes, config, out) == [0, 0]
    by_step: dict[int, dict[int, list[int]]] = {}
    for rank in range(2):
        for line in (out / f"items-{rank}.jsonl").read_text("utf-8").splitlines():
            entry = json.loads(line)
            again = by_step.setdefault(entry["step"], {}).setdefault(rank, entry["items"])
            assert again == entry["items"]  # a step that was done again had the same pairs
    trained = [item for step in by_step.values() for items in step.values() for item in items]
    assert sorted(trained) == [n for n in range(22) if n != 7]
    assert [entry["step"] for entry in read_log(out)] == [1, 2, 3, 4, 5, 6]
    assert sum(entry["images"] for entry in read_log(out)) == 21


def test_two_processes_train_what_one_does(processes: Any, base: Path, shards: Path, tmp_path: Path) -> None:
    """The last step has 2 pairs; with micro-batches of 1 each process adds up two gradients before it shares them."""
    config = tiny_config(base, shards, "optimiser.micro_batch=1")
    train(config, tmp_path / "one", quiet=True)
    assert run_two(processes, config, tmp_path / "two") == [0, 0]
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert_same_training(two, one, lr=1e-2, steps=6)
    losses = [[entry["loss"] for entry in read_log(tmp_path / name)] for name in ("one", "two")]
    assert_close(losses[1][0], losses[0][0], TRAINING_STEP)
    # Later losses are those of parameters that lie apart, by up to this part of how far they moved.
    assert losses[1] == pytest.approx(losses[0], rel=10 * 6 * float_tolerance(torch.float32, TRAINING_STEP))


# ------------------------------------------------------------------ schedules


def test_schedules() -> None:
    def rates(**options: Any) -> list[float]:
        return [learning_rate(Optimiser(rate=1.0, **options), step, 10) for step in range(10)]

    assert rates() == [1.0] * 10
    assert rates(warmup=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(schedule="linear") == pytest.approx([1 - step / 10 for step in range(10)])
    cosine = rates(schedule="cosine", warmup=2)
    assert cosine[2] == pytest.approx(1.0)
    assert cosine[6] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(cosine[2:]))
