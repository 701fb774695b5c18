"""CLIP Surgery (Li et al., 2023): a second path of value-value attention, and similarity without what all texts share.

Shapes: B images, h x w patches, L = 1 + h*w tokens (the class token first), D width, C channels, N texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ttd.encoders.calibration import Calibration
from ttd.encoders.last_block import second_path, self_self_attention
from ttd.encoders.methods import Context, Method
from ttd.registry import METHODS
from ttd.text.words import templates

BLOCKS = 6  # the last ones, which get a second path
SHARPNESS = 2.0  # of the weights of the texts


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Tensor:
    """The second path's patches `[B,h*w,D]`: attention by values is added in each of the last blocks, and no MLP."""
    return second_path(blocks, hidden_states, BLOCKS, lambda module, z: self_self_attention(module, z, grid, "vv"))


def similarity(dense: Tensor, pooled: Tensor, text: Tensor, context: Context) -> Tensor:
    """Feature surgery, `[B,N,h,w]`: by how much a text exceeds the mean of all texts, each weighed by the whole image.

    A text that is asked alone is compared with the empty sentence instead.
    """
    text = text if text.ndim == 3 else text.expand(len(dense), -1, -1)
    if text.shape[1] == 1:
        if context.encode_text is None:
            raise ValueError("a single text is compared with the empty sentence: the context must encode texts")
        return without_empty(dense, text, context.encode_text([""], templates("maskclip85"))[0])
    sim = torch.einsum("bchw,bnc->bnhw", dense, text)
    weight = (SHARPNESS * torch.einsum("bc,bnc->bn", pooled, text)).softmax(-1)
    weighed = weight.div(weight.mean(-1, keepdim=True))[..., None, None] * sim
    return weighed - weighed.mean(1, keepdim=True)


def without_empty(dense: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Cosines `[B,N,h,w]` of texts `[B,N,C]` less those of the empty sentence `[C]`."""
    return torch.einsum("bchw,bnc->bnhw", dense, text - empty)


def points(sim: Tensor, size: tuple[int, int], threshold: float = 0.8) -> tuple[Tensor, Tensor]:
    """Where a text is for sure and where it is not, as prompts for SAM.

    Args:
        sim: its similarity `[h,w]`.
        size: height and width of the image, in whose pixels the points are given.
        threshold: on the map from 0 (lowest) to 1 (highest).

    Returns:
        Points int64 `[2*n,2]` (x, y), and their labels int64 `[2*n]`: 1 for the n highest, then 0 for the n lowest;
        none of a map that is the same everywhere.
    """
    height, width = sim.shape
    size_of_small = (max(1, height // 2), max(1, width // 2))
    small = interpolate(sim[None, None], size_of_small, mode="bilinear", align_corners=False)[0, 0]
    values = (small - small.min()) / (small.max() - small.min())
    order = values.flatten().sort().indices
    count = min(int((values >= threshold).sum()), values.numel() // 2)
    chosen = torch.cat([order[len(order) - count :], order[:count]])
    x = ((chosen % small.shape[1] + 0.5) * size[1] / small.shape[1]).clamp_max(size[1] - 1)
    y = ((chosen // small.shape[1] + 0.5) * size[0] / small.shape[0]).clamp_max(size[0] - 1)
    labels = torch.cat([torch.ones(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)])
    return torch.stack([x, y], 1).long(), labels


def positions(native: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings `[1,D,s,s]` -> `[1,D,h,w]`, bilinearly by size.

    The published code writes them back into the model, so that a later image starts from the resized ones; this does
    not.
    """
    if tuple(native.shape[-2:]) == grid:
        return native
    return interpolate(native, size=grid, mode="bilinear", align_corners=False)


METHODS.add(
    "clip-surgery",
    Method(
        "clip-surgery",
        "Li et al., 2023",
        patches=patches,
        protocol="clip-surgery",
        similarity=similarity,
        positions=positions,
        every_state=True,
        uses_query=False,
        # Not fitted: 0 is what all texts share, and a tenth of a cosine is much. `ttd calibrate` fits it.
        calibration=Calibration(40.0, 0.02),
    ),
    __name__,
)
