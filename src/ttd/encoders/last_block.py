"""The last vision block, changed so that every patch keeps its own meaning: MaskCLIP and its successors.

Two switches span the published methods: what replaces attention, and whether the residual and the MLP stay.

| method    | attention                      | residual + MLP |
|-----------|--------------------------------|----------------|
| maskclip  | identity                       | kept           |
| sclip     | softmax(q q') + softmax(k k')  | kept           |
| clearclip | softmax(q q')                  | dropped        |
| naclip    | softmax(k k' + Gaussian window)| dropped        |
| values    | identity                       | dropped        |

Shapes: B images, L = 1 + h*w tokens (the class token first), D width, nh heads of hs = D / nh channels.
The blocks are transformers' `CLIPEncoderLayer`s, adapted or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ttd.errors import InputError

ATTENTIONS = ("identity", "qq", "kk", "qq+kk")


@dataclass(frozen=True)
class LastBlock:
    """One method of the last block: `LastBlock(...)(block, tokens, grid)` gives the patches' features.

    Attributes:
        attention: "identity", "qq", "kk" or "qq+kk"; the products are scaled by hs**-0.5 as in CLIP.
        gaussian_sigma: width in patches of a Gaussian window added before the softmax; None for none.
        residual_mlp: whether the block's two residual paths and its MLP stay.
    """

    attention: str = "identity"
    gaussian_sigma: float | None = None
    residual_mlp: bool = True

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise InputError(f"unknown attention {self.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        if self.gaussian_sigma is not None and (self.attention == "identity" or self.gaussian_sigma <= 0):
            raise InputError("a Gaussian window needs a positive width and an attention other than 'identity'")

    def __call__(self, block: Any, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens `[B,1+h*w,D]` that enter the block -> its patches `[B,h*w,D]`, the class token left out."""
        patches = tokens[:, 1:]
        if self.attention == "identity":
            attended: Tensor = block.self_attn.out_proj(block.self_attn.v_proj(block.layer_norm1(patches)))
        else:
            attended = self._attend(block.self_attn, block.layer_norm1(tokens), grid)[:, 1:]
        if not self.residual_mlp:
            return attended
        y = patches + attended
        out: Tensor = y + block.mlp(block.layer_norm2(y))
        return out

    @property
    def uses_query(self) -> bool:
        """Whether q takes part, so that gradients of the dense features reach it."""
        return "qq" in self.attention

    def _attend(self, attention: Any, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Self-self attention of normalised tokens `[B,L,D]` -> `[B,L,D]`; two terms are added."""
        window = None
        if self.gaussian_sigma is not None:
            window = gaussian_window(grid, self.gaussian_sigma).to(x)
        v = split_heads(attention.v_proj(x), attention.num_heads)
        terms = []
        for name in self.attention.split("+"):
            project = attention.q_proj if name == "qq" else attention.k_proj
            p = split_heads(project(x), attention.num_heads)  # (B, nh, L, hs)
            terms.append(scaled_dot_product_attention(p, p, v, attn_mask=window))
        out: Tensor = attention.out_proj(sum(terms[1:], terms[0]).transpose(1, 2).flatten(2))  # (B, L, D)
        return out


METHODS = {
    "maskclip": LastBlock(),
    "sclip": LastBlock("qq+kk"),
    "clearclip": LastBlock("qq", residual_mlp=False),
    "naclip": LastBlock("kk", gaussian_sigma=5.0, residual_mlp=False),
    "values": LastBlock(residual_mlp=False),
}


DEFAULT = "maskclip"
"""The paper's, and what a CLIP has where nothing names another."""


def last_block(method: str | LastBlock) -> LastBlock:
    """The method of that name, or the block itself."""
    if isinstance(method, LastBlock):
        return method
    if method not in METHODS:
        raise InputError(f"unknown last-block method {method!r}: choose one of {', '.join(METHODS)}")
    return METHODS[method]


def protocol_name(block: LastBlock) -> str | None:
    """The name under which a method is a protocol, None where it is none."""
    return next((name for name, protocol in METHODS.items() if protocol == block), None)


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
