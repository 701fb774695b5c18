"""Data sets that a test writes, and an encoder that reads their truth off the image's colours.

Every class has a colour of its own; an item's image is its label map painted in these colours. The encoder's
feature of a cell is the colour at its centre as a one-hot vector, so with images at their own size a
benchmark must give full marks, and whatever is lost is lost to resizing: pixels that touch another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures


def palette(count: int) -> np.ndarray:
    """`count` colours, uint8 [count, 3], far apart."""
    axis = np.linspace(0, 255, steps(count)).astype(np.uint8)
    return np.array([(r, g, b) for r in axis for g in axis for b in axis], np.uint8)[:count]


def steps(count: int) -> int:
    """How many values a channel takes in `palette`."""
    return max(int(np.ceil(count ** (1 / 3))), 2)


class Oracle(Encoder):
    """Knows `titles`; a text that names several of them (a caption) gets all their channels.

    Args:
        titles: one per class, in the order of `palette`'s colours.
        image_size: the short side that it is used to.
        patch: side of a cell; its colour is the one at its centre.
    """

    kind = "clip"
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    logit_scale = 100.0
    patch_size = 1
    max_tokens = 77
    embedding_size = 0
    background = 0.5

    def __init__(self, titles: Sequence[str], image_size: int = 24, patch: int = 1) -> None:
        super().__init__()
        self.patch_size = patch
        self.backbone = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.backbone.weight)  # the same fingerprint in every process
        torch.nn.init.zeros_(self.backbone.bias)
        self.titles = [title.lower() for title in titles]
        self.image_size = image_size
        self.embedding_size = len(titles) + 2  # then: a word that is not a title, a colour that is none
        self.colours = torch.from_numpy(palette(len(titles))).float() / 255
        self.step = 1 / (steps(len(titles)) - 1)  # between neighbouring values of a channel
        self.images_seen = 0

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        self.images_seen += len(pixels)
        centres = pixels[..., self.patch_size // 2 :: self.patch_size, self.patch_size // 2 :: self.patch_size]
        distance = (centres[:, None] - self.colours[None, :, :, None, None]).abs().amax(2)  # [B,K,H,W]
        nearest = distance.min(1)
        known = torch.where(nearest.values < 0.4 * self.step, nearest.indices, self.embedding_size - 1)
        dense = torch.nn.functional.one_hot(known, self.embedding_size).permute(0, 3, 1, 2).float()
        size = (pixels.shape[-2], pixels.shape[-1])
        pooled = torch.nn.functional.normalize(dense.mean((-2, -1)), dim=-1)
        return ImageFeatures(dense, pooled, size, (0, 0), size)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        return self.encode_image(pixels).dense

    def encode_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        rows = torch.zeros(len(texts), self.embedding_size)
        spelled = {
            title.replace(" ", ""): title for title in self.titles if title == title.strip()
        }  # protocols write some as one word
        for row, text in zip(rows, texts, strict=True):
            whole = spelled.get(text.lower().replace(" ", ""))
            named = [whole] if whole else text.lower().split()
            other = len(self.titles)
            for word in named:
                row[self.titles.index(word) if word in self.titles else other] = 1
            if len(named) > 1 and row[:other].any():
                row[other] = 0
        return torch.nn.functional.normalize(rows, dim=-1)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        return torch.zeros(len(texts), self.max_tokens), [False] * len(texts)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        raise NotImplementedError

    def lora_targets(self) -> list[str]:
        return []


class Constant(Oracle):
    """Sees the same in every cell, like no text: of equal classes the first wins, and no map rises above another."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        seen = super().encode_image(pixels)
        dense = torch.zeros_like(seen.dense)
        dense[:, -1] = 1
        return replace(seen, dense=dense)


def painted(labels: np.ndarray, classes: int) -> Image.Image:
    """The image of class numbers [H,W]."""
    return Image.fromarray(palette(classes)[labels])


def blocks(rng: np.random.Generator, values: Sequence[int], size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """A label map of 8x8 blocks with random values of `values`, uint8."""
    cells = rng.choice(np.array(values, np.uint8), (size[0] // 8, size[1] // 8))
    return np.kron(cells, np.ones((8, 8), np.uint8))


def without_edges(labels: np.ndarray) -> np.ndarray:
    """Labels, 255 where one of a pixel's eight neighbours is of another class."""
    near = np.lib.stride_tricks.sliding_window_view(np.pad(labels, 1, mode="edge"), (3, 3))
    return np.where((near == labels[..., None, None]).all((-2, -1)), labels, 255).astype(labels.dtype)


def save(image: Image.Image | np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)
