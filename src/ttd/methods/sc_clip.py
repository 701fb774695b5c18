"""SC-CLIP (Bai et al., 2024): anomalous tokens repaired, attention by the middle layers, several layers added up.

Shapes: B images, h x w patches, L = 1 + h*w tokens (the class token first), D width, nh heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize, scaled_dot_product_attention

from ttd.encoders.clip_towers import as_map
from ttd.encoders.last_block import split_heads
from ttd.encoders.methods import Context, Method, enlarged_positions
from ttd.methods.patch_weights import ROWS, above, mean_cosine, mixed
from ttd.registry import METHODS

# The published settings, for the 12 blocks of a ViT-B; in other towers the same parts of the depth.
DEPTH = 12
SIMILAR, AGGREGATED = 8, 3  # blocks (from 0) whose patches say which patches attend to which, and which are averaged
ADDED = (3, 10)  # first and last (not included) block of those that are added up
CLASS_WEIGHT = 0.3
LEAST_COSINE = 0.4
NEIGHBOURS, ANOMALOUS = 30, 0.05
SHARPNESS = 3.0


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Tensor:
    """SC-CLIP's patches `[B,h*w,D]`. The published code takes one square window; any grids and batches work here."""
    after = list(hidden_states[1:]) or [hidden_states[0]]  # after block i is [i]
    last = after[-1]
    outliers = anomalous(last[:, 1:])  # (B, h*w)
    x = repaired(last[:, 1:], outliers, grid)
    guide = normalize(repaired(after[_at(SIMILAR, len(blocks))][:, 1:], outliers, grid), dim=-1)
    x = aggregated(guide, x)
    plain = normalize(after[_at(AGGREGATED, len(blocks))][:, 1:], dim=-1)
    block = blocks[-1]
    x = attended(block, x, guide) + CLASS_WEIGHT * last[:, :1]
    first, end = (_at(index, len(blocks)) for index in ADDED)
    several = torch.stack(after[first : max(end, first + 1)]).sum(0)
    middle = attended(block, several[:, 1:], guide) + CLASS_WEIGHT * several[:, :1]
    return aggregated(plain, x + middle)


def anomalous(tokens: Tensor) -> Tensor:
    """Which patches `[B,h*w,D]` are far from all others: bool `[B,h*w]`, those with the highest 5 % of scores."""
    with torch.no_grad():
        score = outlier_scores(tokens)
        return score > torch.quantile(score, 1 - ANOMALOUS, dim=1, keepdim=True)


def outlier_scores(tokens: Tensor) -> Tensor:
    """`[B,L,D]` -> `[B,L]`: how much farther a patch's neighbours are from it than from their own.

    The published code calls it the local outlier factor; unlike that, it reaches every neighbour at the patch's own
    distance to its last one.
    """
    count = min(NEIGHBOURS, tokens.shape[1] - 1)
    if count < 1:
        return tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    tokens = tokens.float()
    farthest, nearest = [], []
    for rows in torch.split(tokens, ROWS, 1):
        distance, index = torch.cdist(rows, tokens).square().topk(count + 1, largest=False)
        farthest.append(distance[..., -1])
        nearest.append(index[..., 1:])  # without itself
    reach = torch.cat(farthest, 1).clamp_min(1e-12)
    of_neighbours = reach.gather(1, torch.cat(nearest, 1).flatten(1)).view(*reach.shape, count)
    return (reach[..., None] / of_neighbours).mean(-1)


def repaired(tokens: Tensor, outliers: Tensor, grid: tuple[int, int]) -> Tensor:
    """`[B,h*w,D]`, where each outlier is the mean of those of its eight neighbours that are none."""
    image = as_map(tokens, grid)
    good = (~outliers).view(-1, 1, *grid).to(image.dtype)
    total = avg_pool2d(image * good, 3, 1, 1, divisor_override=1)
    count = avg_pool2d(good, 3, 1, 1, divisor_override=1)
    replaced = torch.where((good == 0) & (count > 0), total / count.clamp_min(1), image)
    return replaced.flatten(2).transpose(1, 2)


def aggregated(guide: Tensor, x: Tensor) -> Tensor:
    """`x [B,h*w,D]` averaged over patches that are alike in `guide [B,h*w,D]` (normalised)."""

    def weights(cosines: Tensor) -> Tensor:
        alike = torch.where(cosines < LEAST_COSINE, 0.0, cosines)
        return alike / (alike.sum(-1, keepdim=True) + 1e-6)

    return mixed(guide, x, weights)


def attended(block: Any, x: Tensor, guide: Tensor) -> Tensor:
    """The last block's attention over patches `[B,h*w,D]`, half by keys, half by `guide`; no residual, no MLP."""
    attention = block.self_attn
    z = block.layer_norm1(x)
    v = attention.v_proj(z)
    k, heads_v = (split_heads(one, attention.num_heads) for one in (attention.k_proj(z), v))
    by_keys = scaled_dot_product_attention(k, k, heads_v).transpose(1, 2).flatten(2)
    threshold = mean_cosine(guide)
    by_guide = mixed(guide, v, lambda cosines: above(cosines, threshold, SHARPNESS))
    out: Tensor = attention.out_proj((by_keys + by_guide) / 2)
    return out


def _at(index: int, depth: int) -> int:
    return max(0, min(round(index * depth / DEPTH), depth - 2))


METHODS.add(
    "sc-clip",
    Method(
        "sc-clip",
        "Bai et al., 2024",
        patches=patches,
        protocol="sc-clip",
        positions=enlarged_positions,
        every_state=True,
        uses_query=False,
    ),
    __name__,
)
