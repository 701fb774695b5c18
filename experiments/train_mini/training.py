"""Trains `mini` from nothing with CLIP's own loss on scenes and captions; killed at any moment, it goes on.

python -m experiments.train_mini --out runs/mini

What a step sees is decided by (seed, step) alone, so a checkpoint is weights, optimiser and step.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import cos, log, pi
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.train_mini.model import (
    GRID,
    contrastive_loss,
    embed_captions,
    embed_patches,
    new_mini,
    sigmoid_loss,
)
from experiments.train_mini.pool import ScenePool, mirror_patches
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.errors import InputError
from ttd.files.documents import as_read_back
from ttd.inference.device import find_device
from ttd.runs import differences
from ttd.scenes.scene import Scenes
from ttd.training import checkpoint
from ttd.training.checkpoint import CHECKPOINTS

logger = logging.getLogger(__name__)

# OpenAI's statistics of pixels in 0..1, so that mini is fed like every other CLIP.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIGLIP_START = (log(10), -10.0)  # logarithm of the scale, and the bias, as SigLIP starts
_CROP_GRID = 4  # one-object images of 64 px cover 4x4 of the 8x8 cells

Loss = Literal["clip", "siglip"]


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: `share` of the batch are full scenes with `keep` of their 64 patches, the rest
    images of one object on 64 px with all of theirs."""

    steps: int
    share: float
    keep: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    A model started on full scenes learns only backgrounds; one object first breaks that plateau. `loss`: CLIP's over
    the batch, or SigLIP's over each pair, whose bias is not part of the model: TTD uses cosines alone.
    """

    stages: tuple[Stage, ...] = (
        Stage(400, 0.0, 64),
        Stage(2_600, 0.5, 32),
        Stage(4_800, 0.75, 48),
        Stage(1_200, 0.75, 64),
    )
    batch: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 200
    clip_norm: float = 1.0
    cls_dropout: float = 0.5
    full_scenes: int = 100_000
    crops: int = 60_000
    seed: int = 0
    loss: Loss = "clip"

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        return self.stages[-1]

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a half cosine down to zero."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (1 + cos(pi * done)) / 2


BRIEF = Recipe(stages=(Stage(2, 0.0, 64), Stage(2, 0.5, 32)), batch=16, warmup=2, full_scenes=40, crops=40)
"""A run of seconds that exercises every part."""


class Batches:
    """Makes the batch of a step from the pools of full scenes and of one-object crops."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self.full = ScenePool(folder, Scenes("train", recipe.seed), recipe.full_scenes)
        self.crops = ScenePool(folder, Scenes("train", recipe.seed, size=64, objects=(1, 1)), recipe.crops)

    def __call__(self, step: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """Groups of (patches uint8 [b, n, 768], places [b, n]), token ids [B, L] and their lengths [B]."""
        recipe, stage = self.recipe, self.recipe.stage(step)
        rng = np.random.default_rng((recipe.seed, step))
        full = round(recipe.batch * stage.share)
        groups, captions = [], []
        if full:
            group, texts = self._full(rng, full, stage.keep)
            groups.append(group)
            captions += texts
        if full < recipe.batch:
            group, texts = self._crops(rng, recipe.batch - full)
            groups.append(group)
            captions += texts
        return groups, *_token_batch(captions)

    def _full(self, rng: np.random.Generator, count: int, keep: int) -> tuple[tuple[Tensor, Tensor], list[str]]:
        chosen = rng.integers(len(self.full), size=count)
        places = rng.random((count, GRID * GRID)).argsort(1)[:, :keep]
        flipped = rng.random(count) < 0.5
        # A mirrored scene takes its cells from the mirrored columns.
        source = np.where(flipped[:, None], places // GRID * GRID + (GRID - 1 - places % GRID), places)
        patches = self.full.patches[chosen[:, None], source]
        return (_flip(patches, flipped), torch.from_numpy(places)), self._captions(rng, self.full, chosen)

    def _crops(self, rng: np.random.Generator, count: int) -> tuple[tuple[Tensor, Tensor], list[str]]:
        chosen = rng.integers(len(self.crops), size=count)
        patches = self.crops.patches[chosen]
        flipped = rng.random(count) < 0.5
        patches[flipped] = mirror_patches(patches[flipped], _CROP_GRID)
        corner = rng.integers(GRID - _CROP_GRID + 1, size=(count, 2))
        inside = np.arange(_CROP_GRID)
        places = (corner[:, :1, None] + inside[:, None]) * GRID + corner[:, 1:, None] + inside
        group = torch.from_numpy(patches), torch.from_numpy(places.reshape(count, -1))
        return group, self._captions(rng, self.crops, chosen)

    def _captions(self, rng: np.random.Generator, pool: ScenePool, chosen: np.ndarray) -> list[str]:
        epoch = int(rng.integers(1, 2**40))
        return [pool.scenes.caption(int(i), pool.labels[i], epoch).text for i in chosen]


def _flip(patches: np.ndarray, flipped: np.ndarray) -> Tensor:
    """Mirrors the pixels inside every patch of the chosen images; [B, n, 768]."""
    shape = patches[flipped].shape
    patches[flipped] = patches[flipped].reshape(*shape[:2], -1, 16)[..., ::-1].reshape(shape)
    return torch.from_numpy(patches)


@lru_cache(maxsize=4096)
def _word_ids(word: str) -> tuple[int, ...]:
    return tuple(clip_tokenizer()(word, add_special_tokens=False)["input_ids"])


def _token_batch(captions: list[str]) -> tuple[Tensor, Tensor]:
    """CLIP splits at white space first, so a caption's tokens are those of its words."""
    start, end = 49_406, 49_407
    rows = [[start, *(i for word in text.split() for i in _word_ids(word)), end] for text in captions]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), end)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths


class ClipTrainer:
    """The run in `folder`: model, optimiser, the step it has reached, and its log."""

    def __init__(self, recipe: Recipe, folder: Path, device: str = "cpu") -> None:
        self.recipe, self.folder, self.device = recipe, folder, find_device(device)
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.model = new_mini().to(self.device).train()
        self.bias = torch.nn.Parameter(torch.tensor(SIGLIP_START[1], device=self.device))
        if recipe.loss == "siglip":
            torch.nn.init.constant_(self.model.logit_scale, SIGLIP_START[0])
        matrices = [p for p in self.model.parameters() if p.ndim >= 2]
        others = [p for p in self.model.parameters() if p.ndim < 2]
        others += [self.bias] if recipe.loss == "siglip" else []
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
        self.step = 0
        self._normaliser = _Normaliser(self.device)
        self._resume()

    def train(self, until: int | None = None, save_every: int = 500) -> None:
        """Runs to the end of the recipe (or to step `until`), saving as it goes and when it is interrupted."""
        batches = Batches(self.recipe, self.folder / "pool")
        last = min(self.recipe.steps, until or self.recipe.steps)
        with (
            tqdm(total=last, initial=self.step, desc="training", unit="step", disable=None) as bar,
            self._saved(),
        ):
            began, first = time.monotonic(), self.step
            while self.step < last:
                loss = self._advance(batches(self.step))
                bar.update()
                if self.step % 50 == 0 or self.step == last:
                    rate = (self.step - first) * self.recipe.batch / (time.monotonic() - began)
                    bar.set_postfix(loss=f"{loss:.3f}", images=f"{rate:.0f}/s")
                    self._log(step=self.step, loss=round(loss, 4), images_per_second=round(rate, 1))
                if self.step % save_every == 0:
                    self.save()

    def _advance(self, batch: tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]) -> float:
        groups, token_ids, lengths = batch
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            images = [self._embed(patches, places, generator) for patches, places in groups]
            texts = embed_captions(self.model, token_ids.to(self.device), lengths.to(self.device))
        loss = self._loss(torch.cat(images), texts)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise InputError(f"The loss is {value} at step {self.step}: lower the learning rate and start again.")
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimiser.step()
        self.step += 1
        return value

    def _loss(self, images: Tensor, texts: Tensor) -> Tensor:
        if self.recipe.loss == "siglip":
            return sigmoid_loss(images, texts, self.model.logit_scale, self.bias)
        return contrastive_loss(images, texts, self.model.logit_scale)

    def _embed(self, patches: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        dropped = torch.rand(len(patches), generator=generator) < self.recipe.cls_dropout
        pixels = self._normaliser(patches.to(self.device))
        return embed_patches(self.model, pixels, places.to(self.device), dropped.to(self.device))

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "bias": self.bias.detach(),
            "optimiser": self.optimiser.state_dict(),
            "recipe": as_read_back(asdict(self.recipe)),
        }
        checkpoint.save(self.folder / CHECKPOINTS, self.step, state, keep=1)

    def _resume(self) -> None:
        state = checkpoint.load_last(self.folder / CHECKPOINTS)
        if state is None:
            return
        if other := differences(state["recipe"], asdict(self.recipe)):
            raise InputError(f"{self.folder} holds a run with another recipe ({other}): choose another, or remove it")
        self.model.load_state_dict(state["model"])
        self.bias.data.copy_(state["bias"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        logger.info("continuing at step %d of %d", self.step, self.recipe.steps)

    @contextmanager
    def _saved(self) -> Iterator[None]:
        """Whatever ends the loop, what it reached is on disk."""
        try:
            yield
        finally:
            self.save()

    def _log(self, **entry: object) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class _Normaliser:
    """uint8 patches [b, n, 3*256] -> normalised float32."""

    def __init__(self, device: torch.device) -> None:
        mean, std = (torch.tensor(v).repeat_interleave(256).to(device) for v in (MEAN, STD))
        self.scale, self.shift = 1 / (255 * std), -mean / std

    def __call__(self, patches: Tensor) -> Tensor:
        return torch.addcmul(self.shift, patches.float(), self.scale)
