"""A CLIP's vision tower and its resizing written down a second time, in float64, for `test_formulas`."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.features import ImageFeatures

PARITY = 1e-4  # of features and similarities, as against the public code
NATIVE = 4  # positions along a side of the tiny CLIP


def taps(old: int, new: int, extra: float, kernel: Any, reach: int) -> Tensor:
    """How each of `new` samples weighs `old` ones: `[new,old]`; samples beyond the ends are the outer ones."""
    found = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        source = (i + 0.5) * old / (new + extra) - 0.5
        for k in range(math.floor(source) - reach + 1, math.floor(source) + reach + 1):
            found[i, min(max(k, 0), old - 1)] += kernel(abs(source - k))
    return found


def cubic(d: float, a: float = -0.75) -> float:
    return ((a + 2) * d - (a + 3)) * d * d + 1 if d <= 1 else a * (((d - 5) * d + 8) * d - 4)


def bilinear(old: int, new: int) -> Tensor:
    return taps(old, new, 0, lambda d: 1 - d, 1)


def enlarged(old: int, new: int) -> Tensor:
    """Bicubic by the factor (new + 0.1) / old, as in the codes that follow SCLIP's."""
    return taps(old, new, 0.1, cubic, 2)


def antialiased(old: int, new: int) -> Tensor:
    """Bicubic, wider where it makes smaller; what lies beyond the ends does not count."""
    found = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        for k in range(old):
            d = abs(k + 0.5 - (i + 0.5) * old / new) / max(1.0, old / new)
            found[i, k] = cubic(d, -0.5) if d < 2 else 0
    return found / found.sum(1, keepdim=True)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly, `[...,h,w]` -> `[...,H,W]`, in the maps' type."""
    rows, columns = (bilinear(old, new).to(maps) for old, new in zip(maps.shape[-2:], size, strict=True))
    return rows @ maps @ columns.T


def ordinary(block: Any, x: Tensor) -> Tensor:
    a = block.self_attn
    mixed = [(q @ k.T * a.head_dim**-0.5).softmax(-1) @ v for q, k, v in of_heads(a, block.layer_norm1(x))]
    x = x + a.out_proj(torch.cat(mixed, 1))
    return x + block.mlp(block.layer_norm2(x))


def of_heads(a: Any, z: Tensor) -> list[tuple[Tensor, ...]]:
    """q, k and v of each head, `[L,d]` each."""
    return list(zip(*(project(z).chunk(a.num_heads, 1) for project in (a.q_proj, a.k_proj, a.v_proj)), strict=True))


class Tower:
    """The vision tower of a tiny CLIP in float64, and one image's tokens before and after each of its blocks."""

    def __init__(self, encoder: CLIPEncoder, image: Tensor, fitted: Any = enlarged) -> None:
        """`fitted`: how each axis of the positions fits another grid."""
        clip = deepcopy(encoder._clip).double()
        vision = clip.vision_model
        self.clip, self.blocks = clip, vision.encoder.layers
        patches = vision.embeddings.patch_embedding(image.double()[None])[0]
        self.grid = h, w = (patches.shape[-2], patches.shape[-1])
        table = vision.embeddings.position_embedding.weight
        positions = table[1:].T.reshape(-1, NATIVE, NATIVE)  # as they are where there are as many as patches
        if h * w != NATIVE**2:
            down, across = (fitted(NATIVE, side) for side in self.grid)
            positions = down @ positions @ across.T
        x = patches.flatten(1) + positions.flatten(1)
        first = vision.embeddings.class_embedding + table[0]
        self.states = [vision.pre_layrnorm(torch.cat([first[None], x.T]))]
        for block in self.blocks:
            self.states.append(ordinary(block, self.states[-1]))

    def projected(self, x: Tensor) -> Tensor:
        return normalize(self.clip.visual_projection(self.clip.vision_model.post_layernorm(x)), dim=-1)

    def assert_features(self, found: ImageFeatures, x: Tensor, grid: tuple[int, int] | None = None) -> None:
        """What enters the projection, `[n,D]`, gives these features, and through them these cosines."""
        expected = self.projected(x).T.reshape(1, -1, *(grid or self.grid))
        torch.testing.assert_close(found.dense.double(), expected, atol=PARITY, rtol=0)
