"""The attention of the last block of SAM's image encoder, by `transformers`.

Shapes: nh heads, n = hs * ws patches of an image (16 pixels of SAM's input each), d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad

from ttd.encoders.loading.pretrained import SAM_ANCHOR, load_pretrained, read_config
from ttd.encoders.registry import find_folder
from ttd.errors import ModelError
from ttd.images import normalise_pixels
from ttd.methods.second_backbone import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Attention:
    """Attention of one block, computed some rows at a time.

    Attributes:
        q, k, v: `[nh,n,d]`.
        grid: (hs, ws).
        scale: of the products.
        down, across: what relative positions add, `[nh,n,all rows]` and `[nh,n,all columns]` of `whole`; None: nothing.
        whole: the grid over which attention runs, padding included, with `k` of all its patches; None: `grid`.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid: tuple[int, int]
    scale: float
    down: Tensor | None = None
    across: Tensor | None = None
    whole: tuple[int, int] | None = None

    def weights(self, rows: slice) -> Tensor:
        """`[nh,rows,n]`: of some patches to all of the image; what goes to the padding is left out."""
        logits = (self.q[:, rows] * self.scale) @ self.k.transpose(1, 2)
        whole = self.whole or self.grid
        if self.down is not None and self.across is not None:
            relative = self.down[:, rows, :, None] + self.across[:, rows, None, :]
            logits = logits + relative.flatten(2)
        weights = logits.softmax(-1).view(*logits.shape[:2], *whole)
        own: Tensor = weights[..., : self.grid[0], : self.grid[1]].flatten(2)
        return own


class SAMEncoder(nn.Module):
    """SAM's image encoder; takes a `transformers.SamVisionEncoder`."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.side, self.patch = int(encoder.config.image_size), int(encoder.config.patch_size)

    @torch.no_grad()
    def attention(self, image: Image.Image) -> Attention:
        """The last block's attention for an RGB image.

        As SAM's own code: the longer side becomes SAM's (bilinear, antialiased), the rest of the square is padded. As
        Trident's: of each axis the patches count that the image fills, one at least.
        """
        longer = max(image.size)
        width, height = (max(1, int(side * self.side / longer + 0.5)) for side in image.size)
        parameter = next(self.encoder.parameters())
        small = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))
        pixels = normalise_pixels(small.to(parameter.device), IMAGENET_MEAN, IMAGENET_STD)
        pixels = pad(pixels, (0, self.side - width, 0, self.side - height))[None]
        layer = self.encoder.layers[-1]
        seen: list[Tensor] = []  # what enters the last block's attention
        handle = layer.layer_norm1.register_forward_hook(lambda _, inputs, output: seen.append(output))
        try:
            self.encoder(pixels.to(parameter.dtype))
        finally:
            handle.remove()
        return self._of(layer.attn, seen[0], (max(1, height // self.patch), max(1, width // self.patch)))

    @staticmethod
    def _of(attention: Any, hidden: Tensor, grid: tuple[int, int]) -> Attention:
        """Attention of one block from what enters it, `[1,h,w,D]`, of which `grid` is the image."""
        height, width = hidden.shape[1:3]
        q, k, v = attention.qkv(hidden).view(height, width, 3, attention.num_attention_heads, -1).permute(2, 3, 0, 1, 4)

        def own(x: Tensor) -> Tensor:
            return x[:, : grid[0], : grid[1]].flatten(1, 2).float()

        down = across = None
        if attention.use_rel_pos:
            rows = attention.get_rel_pos(height, height, attention.rel_pos_h)
            columns = attention.get_rel_pos(width, width, attention.rel_pos_w)
            down = own(torch.einsum("nhwc,hkc->nhwk", q, rows))
            across = own(torch.einsum("nhwc,wkc->nhwk", q, columns))
        whole = k.flatten(1, 2).float()
        return Attention(own(q), whole, own(v), grid, float(attention.scale), down, across, (height, width))


def load_sam_encoder(name: str | Path, device: torch.device | str = "cpu") -> SAMEncoder:
    """SAM's image encoder of a folder or hub id (`model_type` "sam").

    Raises:
        ModelError: it is missing, damaged, of another kind, or its last block looks at windows only.
    """
    from transformers import SamConfig, SamModel

    folder = find_folder(name, "second backbone", ["sam"])
    config = read_config(folder, SamConfig)
    vision = config.vision_config
    if vision.num_hidden_layers - 1 not in vision.global_attn_indexes:
        raise ModelError(
            f"the last block of {folder} attends within windows: give a SAM model such as facebook/sam-vit-base"
        )
    encoder = load_pretrained(SamModel, folder, config, anchor=SAM_ANCHOR).vision_encoder
    return SAMEncoder(encoder).to(device).eval()
