"""ProxyCLIP (Lan et al., ECCV 2024): attention between CLIP's patches by a second backbone's similarities.

Shapes: B images, h x w patches of CLIP, I x J of the second backbone, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ttd.encoders.clip_towers import as_map
from ttd.encoders.methods import Context, Method, Patches, enlarged_positions
from ttd.methods.patch_weights import above, mean_cosine, mixed
from ttd.methods.second_backbone import NamedBackbone
from ttd.registry import METHODS

BETA, GAMMA = 1.2, 3.0  # which cosines count (above BETA times their mean), and how sharply
DEFAULT_BACKBONE = "dino-vitb8"


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Patches:
    """The last block's values on the second backbone's grid, `[B,I*J,D]`, mixed by its cosines; no residual, no MLP."""
    guide = context.second(context.colours())
    return Patches(guided(blocks[-1], hidden_states[-1], grid, guide), (guide.shape[-2], guide.shape[-1]))


def guided(block: Any, tokens: Tensor, grid: tuple[int, int], guide: Tensor, *, together: bool = False) -> Tensor:
    """The last block's attention by another model's features, without residual and MLP: `[B,I*J,D]`.

    Args:
        block: the last one.
        tokens: `[B,1+h*w,D]` that enter it.
        grid: (h, w).
        guide: features `[B,C,I,J]`.
        together: cosines are compared with the mean over all B, not each image's own.
    """
    fine = (guide.shape[-2], guide.shape[-1])
    values = as_map(block.self_attn.v_proj(block.layer_norm1(tokens[:, 1:])), grid)
    values = interpolate(values, fine, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    guide = normalize(guide.flatten(2).transpose(1, 2), dim=-1)
    mean = mean_cosine(guide)
    threshold = BETA * (mean.mean(0, keepdim=True) if together else mean)
    out: Tensor = block.self_attn.out_proj(mixed(guide, values, lambda cosines: above(cosines, threshold, GAMMA)))
    return out


METHODS.add(
    "proxyclip",
    Method(
        "proxyclip",
        "Lan et al., ECCV 2024",
        patches=patches,
        protocol="proxyclip",
        second_backbone=NamedBackbone(DEFAULT_BACKBONE),
        positions=enlarged_positions,
        uses_query=False,
    ),
    __name__,
)
