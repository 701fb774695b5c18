"""From cosine maps to targets: `norm`, each map by itself, and the `union` of several maps."""

from __future__ import annotations

import torch
from torch import Tensor


def norm(sim: Tensor, dim: tuple[int, ...] = (-2, -1), eps: float = 1e-6) -> Tensor:
    """Min-max scale maps to 0..1, each by itself: the paper's `norm` (Eq. 4 and 5).

    Args:
        sim: maps `[..., H, W]`; computed in float32 at least.
        dim: the axes over which one minimum and one maximum are taken.
        eps: added to the range, so that a flat map becomes 0 everywhere instead of NaN.
    """
    sim = _at_least_float32(sim)
    low = sim.amin(dim, keepdim=True)
    high = sim.amax(dim, keepdim=True)
    return (sim - low) / (high - low + eps)


def union(maps: Tensor, selected: Tensor) -> Tensor:
    """Pixel-wise maximum of the selected maps: the caption's target in `L_distill` (Eq. 4).

    Args:
        maps: `[..., N, H, W]`, not negative.
        selected: bool `[..., N]`; at least one True gives a map, none gives zeros.

    Returns:
        `[..., H, W]`.
    """
    return torch.where(selected[..., None, None], maps, torch.zeros_like(maps)).amax(-3)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
