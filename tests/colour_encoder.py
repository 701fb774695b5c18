"""An encoder that sees nothing but colour, so that tests know what must come out.

A cell's feature is its mean colour (pixels are normalised with mean 0.5, std 0.5), a text's embedding is the
colour it names; other words look like grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize, pad

from ttd.encoders.base import Encoder
from ttd.encoders.features import PLAIN_MAPS, ImageFeatures, MapQuestion

COLOURS = {
    "red": (1.0, -1.0, -1.0, 0.0),
    "green": (-1.0, 1.0, -1.0, 0.0),
    "blue": (-1.0, -1.0, 1.0, 0.0),
    "padding": (0.0, 0.0, 0.0, 1.0),
}
GREY = (0.3, 0.3, 0.3, 0.1)


class ColourEncoder(Encoder):
    """With `padding`, it pads any size as TCL does, and the padding looks like "padding"; with `own_maps` its maps are
    cosines of 0..1 as they are, averaged as maps."""

    kind = "clip"
    mean = std = (0.5, 0.5, 0.5)
    max_tokens = 8
    embedding_size = 4
    logit_scale = 10.0

    def __init__(self, *, cell: int = 4, padding: int = 0, own_maps: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)
        self.cell = cell
        self.padding = padding
        if own_maps:
            self.averages = "maps"
            self.pads = True
            self.looked_at = "calibrated"
            self.refined_inside = ("pamr",)
            self.default_refinement = "pamr"
        if padding:
            self.usual_templates = "tcl9"
        self.patch_size = padding or cell
        self.image_size = 32
        self.images_seen = 0
        self.texts_seen: list[str] = []

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        self.images_seen += len(pixels)
        height, width = pixels.shape[-2:]
        multiple = self.padding or 1
        down, across = -height % multiple, -width % multiple
        if not self.padding:
            self._check_pixels(pixels, self.patch_size)
        sides = (across // 2, across - across // 2, down // 2, down - down // 2)
        inside = pad(torch.ones_like(pixels[:, :1]), sides)
        four = torch.cat([pad(pixels, sides), 1 - inside], 1)
        dense = normalize(avg_pool2d(four, self.cell), dim=1)
        return ImageFeatures(
            dense=dense,
            pooled=normalize(dense.mean((-2, -1)), dim=-1),
            size=(height, width),
            offset=(down // 2, across // 2),
            padded=(height + down, width + across),
        )

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        return self.encode_image(pixels).dense

    def encode_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        self.texts_seen += texts
        colours = [next((v for name, v in COLOURS.items() if name in text), GREY) for text in texts]
        return normalize(torch.tensor(colours), dim=-1)

    def maps(self, features: ImageFeatures, text: Tensor, question: MapQuestion = PLAIN_MAPS) -> Tensor:
        if self.averages == "cosines":
            return super().maps(features, text, question)
        return self.similarity(features, text).clamp(0, 1)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        lengths = [len(text.split()) + 2 for text in texts]
        return torch.zeros(len(texts), self.max_tokens), [length > self.max_tokens for length in lengths]

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        raise NotImplementedError

    def lora_targets(self) -> list[str]:
        return []
