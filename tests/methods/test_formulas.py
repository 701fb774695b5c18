"""Methods written down again from their description, in float64: other sizes, depths, seeds than the reference has."""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from tests.methods.peer import GivenSAM
from tests.methods.tower import PARITY, Tower, antialiased, bilinear, of_heads, resized
from tests.tiny_models import random_pixels, tiny_clip, tiny_dino
from tests.tolerance import assert_close
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.methods import find_method
from ttd.methods.cliptrase import Vote
from ttd.methods.second_backbone import SecondBackbone
from ttd.methods.trident import Backbones

# ------------------------------------------------------------------ GEM and CLIP Surgery


def two_paths(tower: Tower, count: int, attend: Any) -> Tensor:
    """The new path's tokens `[L,D]` after the last block: it adds attention of the ordinary path's tokens, no MLP."""
    first = max(0, len(tower.blocks) - count)
    new = tower.states[first]
    for block, old in zip(tower.blocks[first:], tower.states[first:], strict=False):
        a, z = block.self_attn, block.layer_norm1(old)
        new = new + a.out_proj(torch.cat([attend(z, *qkv) for qkv in of_heads(a, z)], 1))
    return new


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
@pytest.mark.parametrize(("seed", "layers", "size"), [(0, 3, (64, 64)), (1, 7, (48, 112)), (2, 12, (112, 48))])
@pytest.mark.parametrize(("name", "attend", "fitted"), [("gem", gem, antialiased), ("clip-surgery", surgery, bilinear)])
def test_second_paths(name: str, attend: Any, fitted: Any, seed: int, layers: int, size: tuple[int, int]) -> None:
    encoder = tiny_clip(method=name, layers=layers, seed=seed)
    pixels = random_pixels(1, *size, seed=seed)
    tower = Tower(encoder, pixels[0], fitted)
    expected = tower.projected(two_paths(tower, 6, attend)[1:]).T.reshape(1, -1, *tower.grid)
    assert_close(encoder.encode_image(pixels).dense, expected, 2000)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_feature_surgery(seed: int) -> None:
    """Elementwise, as it is described: products weighed by the whole image, less their mean over texts, then summed."""
    encoder = tiny_clip(method="clip-surgery", seed=seed)
    features = encoder.encode_image(random_pixels(2, 48, 80, seed=seed))
    text = texts(5, seed)
    found = encoder.similarity(features, text)
    for image in (0, 1):
        weights = (2 * features.pooled[image] @ text.T).softmax(-1)
        weights = weights / weights.mean()
        patches = features.dense[image].flatten(1).T  # (h*w, C)
        products = patches[:, None] * text * weights[:, None]  # (h*w, N, C)
        expected = (products - products.mean(1, keepdim=True)).sum(-1)
        assert_close(found[image].flatten(1), expected.T, 2000)


def texts(count: int, seed: int) -> Tensor:
    return normalize(torch.randn(count, 48, generator=torch.Generator().manual_seed(seed)), dim=-1)


# ------------------------------------------------------------------ SC-CLIP


def neighbours(cell: int, grid: tuple[int, int]) -> list[int]:
    """The up to eight cells around a cell of a grid."""
    row, column = divmod(cell, grid[1])
    around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    return [i * grid[1] + j for i, j in around if 0 <= i < grid[0] and 0 <= j < grid[1]]


def outlying(x: Tensor) -> list[int]:
    """Patches `[n,D]` whose score is above its 95th percentile."""
    squared = [[float((a - b).square().sum()) for b in x] for a in x]
    nearest = [sorted(range(len(x)), key=lambda j, i=i: squared[i][j])[1:31] for i in range(len(x))]  # type: ignore[misc]
    density = [len(mine) / squared[i][mine[-1]] for i, mine in enumerate(nearest)]
    score = [np.mean([density[j] / density[i] for j in mine]) for i, mine in enumerate(nearest)]
    return [i for i, one in enumerate(score) if one > np.quantile(score, 0.95)]


def sc_clip(tower: Tower, before: int, after: int, first: int, end: int) -> Tensor:
    """`before` and `after`: blocks, from 0, for attention and for averages; `first` to `end - 1` are added up."""
    block, ran = tower.blocks[-1], tower.states[1:]
    last = ran[len(tower.blocks) - 2]
    bad = outlying(last[1:])
    assert bad

    def repair(x: Tensor) -> Tensor:
        fixed = x.clone()
        for cell in bad:
            good = [one for one in neighbours(cell, tower.grid) if one not in bad]
            if good:
                fixed[cell] = torch.stack([x[one] for one in good]).mean(0)
        return fixed

    def averaged(guide: Tensor, x: Tensor) -> Tensor:
        weights = torch.where(guide < 0.4, 0.0, guide)
        return weights @ x / (weights.sum(1, keepdim=True) + 1e-6)

    def attention(x: Tensor) -> Tensor:
        z, a = block.layer_norm1(x), block.self_attn
        excess = 3 * (m - m.mean())
        by_guide = torch.where(excess < 0, -math.inf, excess).softmax(-1)
        parts = [(by_guide + (k @ k.T * a.head_dim**-0.5).softmax(-1)) / 2 @ v for _, k, v in of_heads(a, z)]
        return a.out_proj(torch.cat(parts, 1))

    b = normalize(repair(ran[before][1:]), dim=-1)
    g = normalize(ran[after][1:], dim=-1)
    m, m2 = b @ b.T, g @ g.T
    x = averaged(m2, attention(averaged(m, repair(last[1:]))) + 0.3 * last[0])
    r = torch.stack(ran[first:end]).sum(0)
    return x + averaged(m2, attention(r[1:]) + 0.3 * r[0])


@torch.no_grad()
@pytest.mark.parametrize(
    ("seed", "layers", "size", "at"),
    [
        (0, 12, (96, 96), (8, 3, 3, 10)),
        (1, 12, (80, 144), (8, 3, 3, 10)),
        (2, 12, (128, 48), (8, 3, 3, 10)),  # fewer than 30 other patches
        (3, 24, (112, 80), (16, 6, 6, 20)),  # the same parts of a ViT-L's depth
        (4, 7, (80, 112), (5, 2, 2, 5)),
    ],
)
def test_sc_clip(seed: int, layers: int, size: tuple[int, int], at: tuple[int, int, int, int]) -> None:
    encoder = tiny_clip(method="sc-clip", layers=layers, seed=seed)
    pixels = random_pixels(1, *size, seed=seed)
    tower = Tower(encoder, pixels[0])
    tower.assert_features(encoder.encode_image(pixels), sc_clip(tower, *at))


# ------------------------------------------------------------------ CLIPtrase


def density_clusters(rows: np.ndarray, eps: float, fewest: int) -> np.ndarray:
    """DBSCAN: clusters grow from rows with `fewest` rows (itself too) within `eps`; -1 for rows that none reaches."""
    near = [np.flatnonzero(np.linalg.norm(rows - row, axis=1) <= eps).tolist() for row in rows]
    labels = np.full(len(rows), -1)
    cluster = 0
    for start in range(len(rows)):
        if labels[start] >= 0 or len(near[start]) < fewest:
            continue
        front = [start]
        while front:
            one = front.pop()
            if labels[one] < 0:
                labels[one] = cluster
                front += near[one] if len(near[one]) >= fewest else []
        cluster += 1
    return labels


def smoothed(image: np.ndarray) -> np.ndarray:
    """Median of 7 x 7 pixels; beyond the border the image is mirrored, its outer pixels doubled."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, 3, mode="symmetric"), (7, 7))
    found: np.ndarray = np.median(windows, axis=(2, 3))
    return found


def cliptrase_features(tower: Tower) -> tuple[Tensor, Tensor]:
    """The tokens `[L,D]` behind the last block, and how each two patches correlate above the class token's share."""
    block, before = tower.blocks[-1], tower.blocks[-2]
    x, a = tower.states[-2], block.self_attn
    mixed = []
    for qkv in of_heads(a, block.layer_norm1(x)):
        mixed.append(sum((u @ u.T * a.head_dim**-0.5).softmax(-1) for u in qkv) @ qkv[2])
    x = x + a.out_proj(torch.cat(mixed, 1))
    x = x + block.mlp(block.layer_norm2(x))
    c = torch.zeros(len(x), len(x), dtype=torch.float64)
    per_head = of_heads(before.self_attn, before.layer_norm1(tower.states[-3]))
    for qkv in per_head:
        for u in qkv:
            u = normalize(u, dim=-1)
            c += u @ u.T / (3 * len(per_head))
    return x, (c[1:, 1:] - c[0, 1:]).clamp_min(0)


def cliptrase_labels(
    tower: Tower, size: tuple[int, int], text: Tensor, names: int, eps: float, fewest: int, *, weighed: bool
) -> np.ndarray:
    """Labels `[H,W]`; texts from `names` on are the background's, whose number is `names`."""
    x, a = cliptrase_features(tower)
    f = tower.projected(x) @ text.double().T  # (L, N)
    logits = resized(f[1:].T.reshape(-1, *tower.grid), size)
    if weighed:
        logits = logits * f[0][:, None, None]
    best = logits.argmax(0).clamp_max(names).numpy()
    clusters = density_clusters(a.numpy(), eps, fewest)
    assert clusters.max() > 0, "one cluster says nothing"
    maps = []
    for cluster in range(clusters.max() + 1):
        own = a[torch.from_numpy(clusters == cluster)].mean(0).reshape(tower.grid)
        fine = resized(own, (4 * tower.grid[0], 4 * tower.grid[1]))
        maps.append(resized(torch.from_numpy(smoothed(fine.numpy())), size).numpy())
    mine = np.stack(maps).argmax(0)
    for cluster in range(len(maps)):
        counted = Counter(best[mine == cluster].tolist())
        if counted:
            best[mine == cluster] = min(counted, key=lambda label: (-counted[label], label))
    return best


@torch.no_grad()
@pytest.mark.parametrize("name", ["cliptrase", "cliptrase-voc20"])
@pytest.mark.parametrize(
    ("seed", "layers", "size", "fewest"),
    [(2, 3, (96, 96), 3), (2, 5, (80, 112), 2), (1, 12, (128, 64), 2), (4, 4, (96, 112), 2)],
)
def test_cliptrase(name: str, seed: int, layers: int, size: tuple[int, int], fewest: int) -> None:
    encoder = tiny_clip(method=name, layers=layers, seed=seed)
    pixels = random_pixels(1, *size, seed=seed)
    tower = Tower(encoder, pixels[0])
    x, affinity = cliptrase_features(tower)
    f = tower.projected(x)
    text = f[1 :: len(x) // 7][:7].float()  # of patches, so that several are somewhere the best
    distances = torch.pdist(affinity).sort().values
    gaps = distances.diff().topk(20).indices  # far from where a rounding decides who is whose neighbour
    eps = max(
        ((distances[gap] + distances[gap + 1]).item() / 2 for gap in gaps),
        key=lambda eps: density_clusters(affinity.numpy(), eps, fewest).max(),
    )
    encoder = encoder.with_method(replace(encoder.method, finish=Vote(eps, fewest)))
    features = encoder.encode_image(pixels)
    tower.assert_features(features, x[1:])
    units = features.extras["units"][0]
    found = (units[1:] @ units[1:].T - units[0] @ units[1:].T).clamp_min(0)
    torch.testing.assert_close(found.double(), affinity, atol=PARITY, rtol=0)
    names = 7 if name == "cliptrase-voc20" else 5
    classes = torch.arange(7).clamp_max(names)
    labels = classes[encoder.similarity(features, text, classes)[0].argmax(0)].numpy()
    expected = cliptrase_labels(tower, size, text, names, eps, fewest, weighed=name == "cliptrase-voc20")
    assert len(np.unique(expected)) > 1
    assert (labels != expected).mean() <= 1e-3


# ------------------------------------------------------------------ ProxyCLIP and Trident


class Proxy:
    """A second backbone of the tiny size, and its patches by transformers."""

    def __init__(self, seed: int, patch: int) -> None:
        self.model = deepcopy(tiny_dino(patch=patch)).eval()
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5, generator=generator)
        self.patch = patch

    def patches(self, encoder: CLIPEncoder, windows: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Of each window `[n,C]`, and their grid: CLIP's normalisation undone, ImageNet's applied."""
        clip = [torch.tensor(values).view(3, 1, 1) for values in (encoder.std, encoder.mean)]
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        pixels = (windows * clip[0] + clip[1] - mean) / std
        tokens = self.model(pixels, interpolate_pos_encoding=True).last_hidden_state
        return list(tokens[:, 1:].double()), tuple(side // self.patch for side in windows.shape[-2:])  # type: ignore[return-value]


def guided(towers: list[Tower], guides: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:
    """The last block of each window, whose patches attend by another backbone's cosines: `[n,D]` each."""
    units = [normalize(one, dim=-1) for one in guides]
    mean = torch.stack([u @ u.T for u in units]).mean()
    found = []
    for tower, u in zip(towers, units, strict=True):
        s = 3.0 * (u @ u.T - 1.2 * mean)
        weights = torch.where(s < 0, -math.inf, s).softmax(-1)
        block = tower.blocks[-1]
        mixed = []
        for _, _, v in of_heads(block.self_attn, block.layer_norm1(tower.states[-2][1:])):
            fine = resized(v.T.reshape(-1, *tower.grid), grid).flatten(1).T
            mixed.append(weights @ fine)
        found.append(block.self_attn.out_proj(torch.cat(mixed, 1)))
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    ("seed", "layers", "size", "patch"), [(0, 1, (64, 64), 8), (1, 4, (48, 112), 8), (2, 12, (224, 112), 14)]
)
def test_proxyclip(seed: int, layers: int, size: tuple[int, int], patch: int) -> None:
    proxy = Proxy(seed, patch)
    method = replace(find_method("proxyclip"), second_backbone=lambda device: SecondBackbone(proxy.model))
    encoder = tiny_clip(layers=layers, seed=seed).with_method(method)
    pixels = random_pixels(2, *size, seed=seed)
    found = encoder.encode_image(pixels)
    for number, image in enumerate(pixels):  # each compared with its own mean, as the code that takes one at a time
        tower = Tower(encoder, image)
        guides, grid = proxy.patches(encoder, image[None])
        tower.assert_features(found.select(slice(number, number + 1)), guided([tower], guides, grid)[0], grid)


@torch.no_grad()
@pytest.mark.parametrize(
    ("seed", "layers", "size", "window", "sam_grid"),
    [(0, 1, (64, 64), 64, (9, 9)), (1, 4, (64, 112), 48, (5, 11)), (2, 12, (128, 80), 64, (13, 8))],
)
def test_trident(seed: int, layers: int, size: tuple[int, int], window: int, sam_grid: tuple[int, int]) -> None:
    proxy, generator = Proxy(seed, 16), torch.Generator().manual_seed(seed)
    sam = [torch.randn(3, *sam_grid, 8, generator=generator) + seed for _ in range(3)]
    both = Backbones(SecondBackbone(proxy.model), GivenSAM(*sam))  # type: ignore[arg-type]
    encoder = tiny_clip(layers=layers, seed=seed).with_method(
        replace(find_method("trident"), second_backbone=lambda device: both)
    )
    image = random_pixels(1, *size, seed=seed)
    tops, lefts = (sorted({*range(0, side - window, 32), side - window}) for side in size)
    places = [(top, left) for top in tops for left in lefts]
    windows = torch.cat([image[..., top : top + window, left : left + window] for top, left in places])
    found = encoder.encode_windows(windows, torch.tensor([[*place, *size, 0] for place in places]), image)

    towers = [Tower(encoder, one) for one in windows]
    guides, grid = proxy.patches(encoder, windows)
    total = torch.zeros(64, size[0] // 16, size[1] // 16, dtype=torch.float64)
    count = torch.zeros(total.shape[1:])
    for (top, left), x in zip(places, guided(towers, guides, grid), strict=True):
        around = (left // 16, (size[1] - window - left) // 16, top // 16, (size[0] - window - top) // 16)
        total += pad(x.T.reshape(-1, *grid), around)
        count += pad(torch.ones(grid), around)
    x = resized(total / count, sam_grid).flatten(1).T  # (n, D)

    q, k, v = (one.double().flatten(1, 2) for one in sam)
    alike = torch.stack([normalize(one, dim=-1) @ normalize(one, dim=-1).T for one in v])
    attention = torch.stack([(a @ b.T * 8**-0.5).softmax(-1) for a, b in zip(q, k, strict=True)])
    weights = torch.zeros(len(x), len(x), dtype=torch.float64)
    for row in range(len(x)):
        least = min(1.2 * float(alike[:, row].mean()), 0.9)
        for head in range(3):
            weights[row] += torch.where(alike[head, row] > least, attention[head, row], 0.0) / 3
        weights[row] /= weights[row].sum()
    towers[0].assert_features(found, weights @ x, sam_grid)
