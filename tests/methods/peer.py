"""The reference of the methods: what the public code of each computes on one small random CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ttd.encoders.clip import OPENAI_MEAN, OPENAI_STD, CLIPEncoder
from ttd.encoders.features import ImageFeatures


class Peer:
    """One method's folder: settings, inputs, outputs, and our encoder with that method."""

    encoder_class: type[CLIPEncoder] = CLIPEncoder

    def __init__(self, root: Path, folder: str, method: str) -> None:
        self.settings: dict[str, Any] = json.loads((root / folder / "settings.json").read_text())
        self.inputs = load_file(root / folder / "inputs.safetensors")
        self.outputs = load_file(root / folder / "outputs.safetensors")
        self.common = load_file(root / "common" / "inputs.safetensors")
        weights = {name: t.float() for name, t in load_file(root / "common" / "weights.safetensors").items()}
        self.encoder = self.encoder_class.from_openai_state_dict(
            weights, method=method, mean=OPENAI_MEAN, std=OPENAI_STD
        )
        self.text = self.inputs["text_emb"]

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 `[H,W,3]` -> `[1,3,H,W]` as the settings say."""
        of = self.settings
        if "image_mean" in of:
            pixels, mean, std = pixels / 255, of["image_mean"], of["image_std"]
        else:
            pixels, mean, std = pixels.float(), of["image_mean_255"], of["image_std_255"]
        return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None].contiguous()

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Features of uint8 pixels `[H,W,3]`, whose sides are multiples of the patch."""
        return self.encoder.encode_image(self.normalised(pixels))
