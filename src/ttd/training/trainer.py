"""Training: steps, checkpoints, signals, logs. The same command resumes a run, however it ended.

N steps without a break and N steps with any number of kills give the same adapter: the order of the data, the
augmentation and the random state of a step depend on (seed, step) alone, everything else is in the checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ttd.data.bad_samples import TRUNCATED_CAPTIONS
from ttd.data.sources import BadSample, PairSource
from ttd.encoders.base import Encoder
from ttd.encoders.registry import load_encoder
from ttd.errors import InputError, OutOfMemory, is_out_of_memory
from ttd.files.schema import any_text, count, fields
from ttd.runs.lock import RunLock
from ttd.training import checkpoint
from ttd.training.checkpoint import CHECKPOINTS, settle_record
from ttd.training.config import Config, Optimiser
from ttd.training.dataset import Batch, StepData, Steps, load_steps
from ttd.training.distributed import (
    Process,
    Stopped,
    StopRequest,
    compile_blocks,
    determinism,
    placed,
    recompute_blocks,
    sums,
)
from ttd.training.export import write_model_card
from ttd.training.logging import Journal, Watch
from ttd.training.lora import Adapter, LearnedCalibration, log_method
from ttd.training.objective import BatchLoss, NonFiniteLoss, Objective

log = logging.getLogger(__name__)

_MEMORY = "the device's memory is too small: set optimiser.micro_batch lower, or run.gradient_checkpointing=true"
DAMAGE = "damage.json"


@dataclass(frozen=True)
class Finished:
    """A run that came to its end.

    Attributes:
        folder: the adapter.
        damaged: pairs and shards that were left out.
        world: processes that took part.
    """

    folder: Path
    damaged: int
    world: int


def train(config: Config, out: str | Path, *, command: str = "", quiet: bool = False) -> Finished:
    """Train, or go on training, an adapter.

    Args:
        config: see `ttd.training.config`.
        out: folder of the run; at the end it is a PEFT adapter's folder.
        command: for `run.json`.
        quiet: no progress bar.

    Raises:
        Stopped: by Ctrl-C or SIGTERM, with everything saved.
        NonFiniteLoss: names the step and the pairs.
        InputError: settings or data that cannot be used, too much damage, or another process trains in the folder.
        ttd.training.checkpoint.DiskFull: the last checkpoint is whole.
    """
    out = Path(out)
    if not config.data.sources:
        raise InputError("no data was named: give tar shards, a folder or a captions file")
    with placed(config.run.device) as place, determinism(config.run.deterministic), StopRequest() as stop:
        if not place.first:
            place.wait()  # until the shards are indexed
        data = config.data
        source = PairSource(data.sources, images=data.images or None, keep=data.keep or None, tags=data.tags or None)
        encoder = load_encoder(
            config.model.name, method=config.model.method or None, device=place.device, dtype="float32"
        )
        if place.first:
            log_method(encoder, config.model)
            place.wait()
        trainer = Trainer(config, out, source, encoder, place)
        out.mkdir(parents=True, exist_ok=True)
        with RunLock(out, place.rank, place.world):
            trainer.settle(command)
            trainer.run(stop, quiet=quiet)
        return Finished(out, len(trainer.report), place.world)


class Trainer:
    """A run in its folder: adapter, optimiser, the step that was reached.

    Args:
        config: of the run.
        out: its folder.
        source: the pairs.
        encoder: the base, without adapter.
        place: this process.
    """

    def __init__(self, config: Config, out: Path, source: PairSource, encoder: Encoder, place: Process) -> None:
        self.config, self.out, self.place = config, out, place
        self.adapter = Adapter(encoder, config.model, config.run.seed, config.loss)
        self.objective = Objective(encoder, self.adapter, config).train()
        self.steps = Steps(source, config, place.rank, place.world)
        self.parameters = [p for _, p in self.adapter.named_parameters()]
        options = config.optimiser
        calibration = dict(self.adapter.calibration_parameters())
        low_rank = [p for name, p in self.adapter.named_parameters() if name not in calibration]
        groups: list[dict[str, Any]] = [{"params": low_rank}]
        if calibration:  # weight decay would pull both numbers to where p is constant
            groups.append({"params": [*calibration.values()], "weight_decay": 0.0})
        self.optimiser = torch.optim.AdamW(groups, lr=options.rate, weight_decay=options.weight_decay)
        self.step, self.signal = 0, 0
        self.report = source.report(config.data.max_bad_samples)
        if config.run.gradient_checkpointing:
            recompute_blocks(encoder.backbone)
        if config.run.compile:
            compile_blocks(encoder.backbone)
        self.forward: nn.Module = self.objective
        if place.world > 1:
            devices = [place.device] if place.device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.objective, device_ids=devices)

    def settle(self, command: str = "") -> None:
        """Write or compare `run.json`, and take over the last checkpoint.

        Raises:
            InputError: the folder holds another run.
        """
        source = self.steps.source
        facts = {
            "command": command,
            "base": self.adapter.fingerprint,
            "method": self.objective.encoder.method_name,
            "data": source.fingerprint(),
            "pairs": len(source),
            "steps": len(self.steps),
            "world": self.place.world,
        }
        settle_record(self.out, self.config, facts, write=self.place.first)
        self.place.wait()
        state = checkpoint.load_last(self.out / CHECKPOINTS)
        self.place.wait()
        if state is None:
            return
        try:
            self._take_over(state)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint in {self.out / CHECKPOINTS} does not fit this run ({type(error).__name__}): "
                "remove it, or start again in another folder"
            ) from error
        log.info("resuming at step %d of %d", self.step, len(self.steps))

    def _take_over(self, state: dict[str, Any]) -> None:
        self.adapter.load_state(state["adapter"])
        self.optimiser.load_state_dict(state["optimiser"])
        for parameter in self.parameters:
            moments = self.optimiser.state[parameter]
            if any(moments[name].shape != parameter.shape for name in ("exp_avg", "exp_avg_sq") if moments):
                raise ValueError("moments of another shape")
        step, cut = state["step"], state.get(TRUNCATED_CAPTIONS, 0)
        fields({"step": count, "cut": count})({"step": step, "cut": cut})
        for damage in state["damaged"]:
            fields(dict.fromkeys(("reason", "shard", "key", "detail"), any_text))(damage)
            self.report.add(BadSample(damage["reason"], damage["shard"], damage["key"], damage["detail"]))
        self.step, self.report.counts[TRUNCATED_CAPTIONS] = step, cut

    def run(self, stop: StopRequest, *, quiet: bool = False) -> None:
        """Go on to the end, or until `stop` asks to leave; then the adapter is in the folder."""
        total, options = len(self.steps), self.config.run
        journal = None
        if self.place.first:
            journal = Journal(self.out, self.step, total, tensorboard=options.tensorboard, quiet=quiet)
        try:
            watch = Watch(self.steps, self.out) if self.place.first and options.watch_every else None
            if watch is not None and self.step == 0:
                watch.draw(self.objective, 0)
            self._loop(stop, journal, watch)
        finally:
            if journal is not None:
                journal.close()
        self.finish()

    def finish(self) -> None:
        """Write the adapter, its model card and the damage report."""
        if self.place.first:
            self.adapter.save(self.out)
            write_model_card(self.out)
            self.report.write(self.out / DAMAGE)
            if said := self.report.cut_sentence(self.objective.encoder.max_tokens):
                log.warning(said)
            if len(self.report):
                log.warning("%s; see %s", self.report.summary(), self.out / DAMAGE)
        self.place.wait()

    def save(self) -> None:
        """Write a checkpoint."""
        if not self.place.first:
            return
        state = {
            "adapter": self.adapter.state(),
            "optimiser": self.optimiser.state_dict(),
            TRUNCATED_CAPTIONS: self.report.counts[TRUNCATED_CAPTIONS],
            "damaged": [*self.report.to_dict()["samples"], *self.report.to_dict()["shards"]],
        }
        checkpoint.save(self.out / CHECKPOINTS, self.step, state, self.config.run.keep_checkpoints)

    def _loop(self, stop: StopRequest, journal: Journal | None, watch: Watch | None) -> None:
        total, options = len(self.steps), self.config.run
        saved = self.step
        data = load_steps(self.steps, self.step)
        began = time.monotonic()
        while self.step < total:
            entry = self.advance(next(data), stop.number)
            if entry is None:  # a signal reached one of the processes
                self._leave(saved)
            entry["images_per_second"] = round(entry["images"] / (time.monotonic() - began), 2)
            began = time.monotonic()
            last = self.step == total
            if journal is not None:
                journal.step(entry, write=last or self.step % options.log_every == 0 or self.step == 1)
            # Drawn before it is saved: a kill between the two draws it again, and never leaves it out.
            if watch is not None and (last or self.step % options.watch_every == 0):
                watch.draw(self.objective, self.step)
            if last or self.step % options.checkpoint_every == 0:
                self.save()
                saved = self.step

    def _leave(self, saved: int) -> NoReturn:
        if saved != self.step:
            self.save()
        self.finish()
        raise Stopped(self.signal)

    def advance(self, data: StepData, signal: int = 0) -> dict[str, Any] | None:
        """One optimiser step on all processes; None, and no step, where a process has received a signal.

        Raises:
            NonFiniteLoss: before anything was changed.
        """
        place = self.place
        interrupted, terminated = signal == SIGINT, signal == SIGTERM
        count, damaged, cut, interrupts, terminates = place.total(
            data.count, len(data.damaged), self._count_cut(data), interrupted, terminated
        )
        if interrupts or terminates:
            self.signal = SIGINT if interrupts else SIGTERM
            return None
        if damaged:
            self._add_damage(data.damaged)
        rate = learning_rate(self.config.optimiser, self.step, len(self.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # So the random state of a step needs no checkpoint: it is (seed, step, rank).
        torch.manual_seed((self.config.run.seed * 1_000_003 + self.step) * place.world + place.rank)
        self.optimiser.zero_grad()
        outcomes = self._backward(data, count) if count else []
        norm = self._update(data) if count else 0.0
        self.step += 1
        self.report.counts[TRUNCATED_CAPTIONS] += int(cut)
        weights = self.config.loss.weights()
        parts = zip(*((o.loss.detach(), o.selected, o.words, *o.terms.values()) for o in outcomes), strict=True)
        none = [0.0] * (3 + len(weights))
        mine = sums([torch.stack([v.float() for v in values]).sum() for values in parts]) if outcomes else none
        loss, selected, words, *terms = place.total(*mine)
        many = max(count, 1)
        return {
            "step": self.step,
            "epoch": (self.step - 1) // self.steps.per_epoch,
            "loss": loss / many,
            **{name: term / many for name, term in zip(weights, terms, strict=True)},
            **{f"{name}_weight": weight for name, weight in weights.items()},
            "selected": selected / max(words, 1),
            "grad_norm": norm,
            **self._learned(),
            "lr": rate,
            "images": int(count),
            "damaged": int(damaged),
            TRUNCATED_CAPTIONS: int(cut),
        }

    def _learned(self) -> dict[str, float]:
        """w and c of the calibration after the step, where they are learned."""
        learned = self.adapter.calibration
        return learned.now.to_dict() if isinstance(learned, LearnedCalibration) else {}

    def _count_cut(self, data: StepData) -> int:
        """Captions of this process's images that are longer than the text tower takes."""
        total = 0
        for batch in data.batches:
            flags = torch.tensor(self.objective.encoder.truncated_texts(batch.captions), dtype=torch.bool)
            total += int((flags[batch.caption_rows] & batch.caption_valid).sum())
        return total

    def _backward(self, data: StepData, count: float) -> list[BatchLoss]:
        """Gradients of the mean loss over all images of the step, on every process."""
        outcomes = []
        batches: list[Batch | None] = [*data.batches] or [None]
        for number, batch in enumerate(batches):
            alone = isinstance(self.forward, DistributedDataParallel) and number < len(batches) - 1
            with self.forward.no_sync() if alone else nullcontext():  # type: ignore[operator]
                try:
                    outcome = self.forward(batch.to(self.place.device) if batch is not None else None)
                    # DDP averages over the processes: times their number that is the sum over all images.
                    (outcome.loss * (self.place.world / count)).backward()
                except NonFiniteLoss as error:
                    raise error.at(self.step + 1) from None
                except (MemoryError, RuntimeError) as error:
                    if is_out_of_memory(error):
                        raise OutOfMemory(_MEMORY) from error
                    raise
            outcomes.append(outcome)
        return outcomes

    def _update(self, data: StepData) -> float:
        """Clip and step; the gradient's norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.optimiser.clip or math.inf)
        value = float(norm)
        if not math.isfinite(value):
            keys = [key for batch in data.batches for key in batch.keys]
            raise NonFiniteLoss("the gradient", keys).at(self.step + 1)
        self.optimiser.step()
        return value

    def _add_damage(self, mine: list[BadSample]) -> None:
        """Every process counts everybody's damage, so that all stop together."""
        for damages in self.place.gathered(mine):
            for damage in damages:  # type: ignore[attr-defined]
                log.info("%s", damage)
                self.report.add(damage)


def learning_rate(options: Optimiser, step: int, total: int) -> float:
    """The rate of step `step` (from 0) of `total`: linear warm-up, then constant, or down to 0."""
    if step < options.warmup:
        return options.rate * (step + 1) / options.warmup
    if options.schedule == "constant":
        return options.rate
    done = (step - options.warmup) / max(1, total - options.warmup)
    if options.schedule == "linear":
        return options.rate * (1 - done)
    return options.rate * 0.5 * (1 + math.cos(math.pi * done))
