"""Patches mixed by how similar they are in another feature space, some rows of the patch-by-patch matrix at a time.

Shapes: B images, L patches, C channels of the other space (the guide), D of what is mixed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 1024


def mixed(guide: Tensor, x: Tensor, weights: Callable[[Tensor], Tensor]) -> Tensor:
    """`x [B,L,D]` -> `[B,L,D]` by weights of the cosines of `guide`.

    Args:
        guide: `[B,L,C]`, normalised.
        x: what is mixed.
        weights: cosines `[B,rows,L]` -> weights of the same shape.
    """
    rows = [weights(part @ guide.transpose(1, 2)).to(x.dtype) @ x for part in torch.split(guide, ROWS, 1)]
    return torch.cat(rows, 1)


def mean_cosine(guide: Tensor) -> Tensor:
    """The mean of the cosines of all pairs of patches, each with itself too: `[B,L,C]` -> `[B,1,1]`."""
    return guide.mean(1).square().sum(-1)[:, None, None]


def above(cosines: Tensor, threshold: Tensor | float, sharpness: float) -> Tensor:
    """Softmax of what cosines `[B,rows,L]` exceed the threshold by; the others weigh nothing.

    A row in which none reaches it (the public codes give NaN) goes to its highest cosine alone.
    """
    excess = sharpness * (cosines - threshold)
    best = excess.amax(-1, keepdim=True)
    return excess.masked_fill((excess < 0) & (excess < best), -torch.inf).softmax(-1)
