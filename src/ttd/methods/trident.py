"""Trident (Shi et al., 2024): windows by ProxyCLIP, spliced before the projection, then mixed by SAM over the image.

Shapes: W windows of h x w patches, H x W' patches of the whole image, hs x ws of SAM, D width, nh of SAM's heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ttd.encoders.clip_towers import as_map
from ttd.encoders.methods import Context, Method, Patches, enlarged_positions
from ttd.images import opencv_resize
from ttd.methods.proxyclip import guided
from ttd.methods.sam_attention import Attention, SAMEncoder, load_sam_encoder
from ttd.methods.second_backbone import SecondBackbone, load_second_backbone
from ttd.registry import METHODS

LEAST, MOST = 1.2, 0.9  # SAM's attention counts where its values are more alike than LEAST times their mean, or MOST
ROWS = 256  # of SAM's patch-by-patch matrices at a time, each with all heads


@dataclass(frozen=True)
class Backbones:
    """Trident's inputs besides CLIP's."""

    proxy: SecondBackbone
    sam: SAMEncoder


@dataclass(frozen=True)
class NamedBackbones:
    """`Method.second_backbone`: a second backbone and SAM, by folder or hub id."""

    proxy: str | Path
    sam: str | Path
    count: ClassVar[int] = 2

    def __call__(self, device: torch.device) -> Backbones:
        """Both, frozen."""
        proxy, sam = load_second_backbone(self.proxy, device), load_sam_encoder(self.sam, device)
        return Backbones(proxy.requires_grad_(False), sam.requires_grad_(False))

    def named(self, name: str | Path) -> NamedBackbones:
        """Another second backbone; "PROXY,SAM" names both."""
        proxy, _, sam = str(name).partition(",")
        return NamedBackbones(proxy, sam or self.sam)


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Patches:
    """The whole image's patches on SAM's grid, `[1,hs*ws,D]`, from all its windows `[W,1+h*w,D]`."""
    assert context.image is not None
    guide = context.second.proxy(context.colours())
    windows = guided(blocks[-1], hidden_states[-1], grid, guide, together=True)
    maps = as_map(windows, (guide.shape[-2], guide.shape[-1]))
    if maps.shape[-2:] != grid:
        maps = interpolate(maps, grid, mode="bilinear", align_corners=False)
    attention = context.second.sam.attention(seen_by_sam(context, context.pixels.shape[-1] // grid[1]))
    whole = interpolate(spliced(maps, context), attention.grid, mode="bilinear", align_corners=False)
    return Patches(correlated(whole.flatten(2).transpose(1, 2)[0], attention)[None], attention.grid)


def seen_by_sam(context: Context, patch: int) -> Image.Image:
    """The image at its own size, each side stretched to the next multiple of CLIP's patch as OpenCV does.

    Where it is known only as it was resized for CLIP (training), that.
    """
    assert context.image is not None
    pixels = context.original
    if pixels is None:
        pixels = (context.colours(context.image)[0] * 255).round().clamp(0, 255).byte().movedim(0, -1)
    height, width = pixels.shape[:2]
    return Image.fromarray(
        opencv_resize(pixels.cpu().numpy(), (-(-height // patch) * patch, -(-width // patch) * patch))
    )


def spliced(maps: Tensor, context: Context) -> Tensor:
    """Windows' maps `[W,D,h,w]` at their places in the whole image, `[1,D,H,W']`, averaged where they overlap."""
    assert context.image is not None
    height, width = maps.shape[-2:]
    patch = context.pixels.shape[-1] // width
    total = maps.new_zeros(1, maps.shape[1], context.image.shape[-2] // patch, context.image.shape[-1] // patch)
    count = torch.zeros_like(total[:, :1])
    places = [(0, 0, 0, 0, 0)] if context.places is None else context.places.tolist()
    for one, (top, left, _, full, mirrored) in zip(maps, places, strict=True):
        left = full - left - context.pixels.shape[-1] if mirrored else left
        rows = slice(top // patch, top // patch + height)
        columns = slice(left // patch, left // patch + width)
        total[..., rows, columns] = total[..., rows, columns] + one
        count[..., rows, columns] += 1
    return total / count


def correlated(x: Tensor, attention: Attention) -> Tensor:
    """Patches `[n,D]` mixed by SAM's attention, head by head only where its values are alike: `[n,D]`."""
    values = normalize(attention.v, dim=-1)  # (nh, n, d)
    mean = torch.einsum("hnd,hd->hn", values, values.mean(1)).mean(0)
    least = (LEAST * mean).clamp_max(MOST)[:, None]  # (n, 1)
    rows = []
    for start in range(0, len(x), ROWS):
        part = slice(start, start + ROWS)
        alike = values[:, part] @ values.transpose(1, 2) > least[part]
        weights = torch.where(alike, attention.weights(part), 0.0).mean(0)
        rows.append((weights / weights.sum(-1, keepdim=True)).to(x.dtype) @ x)
    return torch.cat(rows)


METHODS.add(
    "trident",
    Method(
        "trident",
        "Shi et al., 2024",
        patches=patches,
        protocol="trident",
        second_backbone=NamedBackbones("dino-vitb16", "sam-vit-base"),
        positions=enlarged_positions,
        together=True,
        uses_query=False,
    ),
    __name__,
)
