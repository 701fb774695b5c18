"""GEM (Bousselham et al., CVPR 2024): iterated self-self attention in a second path over the last blocks.

Shapes: B images, L = 1 + h*w tokens (the class token first), D width, nh heads of hs = D / nh channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, scaled_dot_product_attention

from ttd.encoders.last_block import second_path, split_heads
from ttd.encoders.methods import Context, Method
from ttd.registry import METHODS

BLOCKS = 6  # the last ones, which get a second path (GEM's depth of 7 less one)


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Tensor:
    """The second path's patches `[B,h*w,D]`; it adds self-self attention only, no MLP.

    Both paths read the ordinary one, so its states are all that is needed.
    """
    return second_path(blocks, hidden_states, BLOCKS, iterated_attention)


def iterated_attention(attention: Any, z: Tensor) -> Tensor:
    """Normalised tokens `[B,L,D]` -> `[B,L,D]`: q, k and v each attend to themselves twice, then to the values."""
    heads, width = attention.num_heads, attention.head_dim
    # One temperature for an image: the mean length of its tokens.
    tau = (z.norm(dim=-1).mean(1) / width**0.5)[:, None, None, None]
    v = split_heads(attention.v_proj(z), heads)  # (B, nh, L, hs)
    terms = []
    for projected in (v, split_heads(attention.k_proj(z), heads), split_heads(attention.q_proj(z), heads)):
        u = normalize(projected, dim=-1)
        u = normalize(scaled_dot_product_attention(tau * u, u, u, scale=1.0), dim=-1)
        terms.append(scaled_dot_product_attention(tau * u, u, v, scale=1.0))
    out: Tensor = attention.out_proj(torch.stack(terms).mean(0).transpose(1, 2).flatten(2))
    return out


def antialiased_positions(native: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings `[1,D,s,s]` -> `[1,D,h,w]`: bicubically, by size, with antialiasing."""
    if tuple(native.shape[-2:]) == grid:
        return native
    return interpolate(native, size=grid, mode="bicubic", antialias=True, align_corners=False)


METHODS.add(
    "gem",
    Method(
        "gem",
        "Bousselham et al., CVPR 2024",
        patches=patches,
        protocol="gem",
        positions=antialiased_positions,
        every_state=True,
        licence="MIT",
    ),
    __name__,
)
