"""The last vision block: what its patches and its class token become, for methods that change its attention.

Shapes: B images, L = 1 + h*w tokens (the class token first), D width, nh heads of hs = D / nh channels.
The blocks are transformers' `CLIPEncoderLayer`s, adapted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def dense_patches(
    block: Any,
    tokens: Tensor,
    grid: tuple[int, int],
    attention: str = "identity",
    gaussian_sigma: float | None = None,
    residual_mlp: bool = True,
) -> Tensor:
    """Tokens `[B,1+h*w,D]` that enter the block -> its patches `[B,h*w,D]`; by default MaskCLIP's.

    The settings are those of `ttd.encoders.methods.LastBlock`.
    """
    patches = tokens[:, 1:]
    if attention == "identity":
        attended: Tensor = block.self_attn.out_proj(block.self_attn.v_proj(block.layer_norm1(patches)))
    else:
        x = block.layer_norm1(tokens)
        attended = self_self_attention(block.self_attn, x, grid, attention, gaussian_sigma)[:, 1:]
    if not residual_mlp:
        return attended
    y = patches + attended
    out: Tensor = y + block.mlp(block.layer_norm2(y))
    return out


def self_self_attention(
    module: Any, x: Tensor, grid: tuple[int, int], attention: str, gaussian_sigma: float | None = None
) -> Tensor:
    """Tokens after the LayerNorm, `[B,L,D]` -> `[B,L,D]`: the terms of `attention` ("qq+kk", say) are added."""
    window = None if gaussian_sigma is None else gaussian_window(grid, gaussian_sigma).to(x)
    v = split_heads(module.v_proj(x), module.num_heads)
    terms = []
    for name in attention.split("+"):
        p = split_heads({"qq": module.q_proj, "kk": module.k_proj, "vv": module.v_proj}[name](x), module.num_heads)
        terms.append(scaled_dot_product_attention(p, p, v, attn_mask=window))  # (B, nh, L, hs)
    out: Tensor = module.out_proj(sum(terms[1:], terms[0]).transpose(1, 2).flatten(2))
    return out


def second_path(
    blocks: Sequence[Any], hidden_states: Sequence[Tensor], count: int, attend: Callable[[Any, Tensor], Tensor]
) -> Tensor:
    """A path beside the ordinary one through the last `count` blocks: attention alone is added, without MLP.

    Args:
        blocks: the tower's.
        hidden_states: what enters each of them on the ordinary path, `[B,L,D]`, which the second path reads too.
        count: of blocks; fewer where there are fewer.
        attend: a block's attention module and its normalised tokens `[B,L,D]` -> `[B,L,D]`.

    Returns:
        its patches `[B,h*w,D]`.
    """
    first = max(0, len(blocks) - count)
    x = hidden_states[first]
    for block, ordinary in zip(blocks[first:], hidden_states[first:], strict=True):
        x = x + attend(block.self_attn, block.layer_norm1(ordinary))
    return x[:, 1:]


def class_token(block: Any, tokens: Tensor) -> Tensor:
    """The ordinary block for the class token alone, `[B,L,D]` -> `[B,D]`: the pooled embedding's way."""
    attention = block.self_attn
    x = block.layer_norm1(tokens)
    q = split_heads(attention.q_proj(x[:, :1]), attention.num_heads)
    k = split_heads(attention.k_proj(x), attention.num_heads)
    v = split_heads(attention.v_proj(x), attention.num_heads)
    attended = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, 1, D)
    y = tokens[:, :1] + attention.out_proj(attended)
    out: Tensor = y + block.mlp(block.layer_norm2(y))
    return out[:, 0]


def gaussian_window(grid: tuple[int, int], sigma: float) -> Tensor:
    """NACLIP's window `[1+h*w,1+h*w]`: exp(-d^2 / (2 sigma^2)) of two patches' distance d in patches.

    The class token's row and column are 0: the window says nothing about it.
    """
    rows = torch.arange(grid[0], dtype=torch.float32)
    columns = torch.arange(grid[1], dtype=torch.float32)
    down = (rows[:, None] - rows).square()[:, None, :, None]
    across = (columns[:, None] - columns).square()[None, :, None, :]
    cells = grid[0] * grid[1]
    window = torch.zeros(1 + cells, 1 + cells)
    window[1:, 1:] = torch.exp(-(down + across) / (2 * sigma**2)).reshape(cells, cells)
    return window


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B,L,D]` -> `[B,nh,L,hs]`."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
