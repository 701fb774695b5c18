"""Methods written down a second time from their description: other sizes, depths and seeds than the reference has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.tiny_models import random_pixels, tiny_clip
from tests.tolerance import assert_close
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.clip_towers import as_map, embed_patches

CASES = [(0, 3, (64, 64)), (1, 7, (48, 112)), (2, 12, (112, 48))]


def heads(x: Tensor, count: int) -> list[Tensor]:
    """`[L,D]` -> for each head `[L,d]`."""
    return list(x.chunk(count, 1))


def two_paths(encoder: CLIPEncoder, pixels: Tensor, count: int, attend: Any) -> Tensor:
    """The new path's tokens `[L,D]` after the last block: it adds attention of the ordinary path's tokens, no MLP."""
    blocks = encoder._clip.vision_model.encoder.layers
    old = embed_patches(encoder._clip, pixels, encoder.method.positions)[0]
    first = max(0, len(blocks) - count)
    new = old
    for number, block in enumerate(blocks):
        a, z = block.self_attn, block.layer_norm1(old)
        if number == first:
            new = old
        if number >= first:
            new = new + a.out_proj(torch.cat([attend(z, *qkv) for qkv in of_heads(a, z)], 1))
        mixed = [(q @ k.T * a.head_dim**-0.5).softmax(-1) @ v for q, k, v in of_heads(a, z)]
        old = old + a.out_proj(torch.cat(mixed, 1))
        old = old + block.mlp(block.layer_norm2(old))
    return new


def of_heads(a: Any, z: Tensor) -> list[tuple[Tensor, ...]]:
    """q, k and v of each head."""
    return list(zip(*(heads(project(z), a.num_heads) for project in (a.q_proj, a.k_proj, a.v_proj)), strict=True))


def gem(z: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tau = z.norm(dim=-1).mean() * q.shape[1] ** -0.5
    total = torch.zeros_like(v)
    for u in (v, k, q):
        u = u / u.norm(dim=-1, keepdim=True)
        u = (tau * u @ u.T).softmax(-1) @ u
        u = u / u.norm(dim=-1, keepdim=True)
        total = total + (tau * u @ u.T).softmax(-1) @ v
    return total / 3


def surgery(z: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (v @ v.T * v.shape[1] ** -0.5).softmax(-1) @ v


@torch.no_grad()
@pytest.mark.parametrize(("seed", "layers", "size"), CASES)
@pytest.mark.parametrize(("name", "attend"), [("gem", gem), ("clip-surgery", surgery)])
def test_second_paths(name: str, attend: Any, seed: int, layers: int, size: tuple[int, int]) -> None:
    encoder = tiny_clip(method=name, layers=layers, seed=seed)
    pixels = random_pixels(1, *size, seed=seed)
    tokens = two_paths(encoder, pixels, 6, attend)[None, 1:]
    clip = encoder._clip
    expected = normalize(clip.visual_projection(clip.vision_model.post_layernorm(tokens)), dim=-1)
    assert_close(encoder.encode_image(pixels).dense, as_map(expected, (size[0] // 16, size[1] // 16)), 2000)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_feature_surgery(seed: int) -> None:
    """Elementwise, as it is described: products weighed by the whole image, less their mean over texts, then summed."""
    encoder = tiny_clip(method="clip-surgery", seed=seed)
    features = encoder.encode_image(random_pixels(2, 48, 80, seed=seed))
    text = normalize(torch.randn(5, 48, generator=torch.Generator().manual_seed(seed)), dim=-1)
    found = encoder.similarity(features, text)
    for image in (0, 1):
        weights = (2 * features.pooled[image] @ text.T).softmax(-1)
        weights = weights / weights.mean()
        patches = features.dense[image].flatten(1).T  # (h*w, C)
        products = patches[:, None] * text * weights[:, None]  # (h*w, N, C)
        expected = (products - products.mean(1, keepdim=True)).sum(-1)
        assert_close(found[image].flatten(1), expected.T, 2000)
