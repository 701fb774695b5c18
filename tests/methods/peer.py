"""The reference of the methods: what the public code of each computes on one small random CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from ttd.encoders.clip import OPENAI_MEAN, OPENAI_STD, CLIPEncoder
from ttd.encoders.features import ImageFeatures
from ttd.methods.sam_attention import Attention


class GivenSAM(torch.nn.Module):
    """Attention from given q, k and v."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        super().__init__()
        heads, height, width, channels = q.shape
        flat = [x.float().reshape(heads, height * width, channels) for x in (q, k, v)]
        self.given = Attention(*flat, (height, width), channels**-0.5)

    def attention(self, image: object) -> Attention:
        return self.given


class Peer:
    """One method's folder: settings, inputs, outputs, and our encoder with that method."""

    encoder_class: type[CLIPEncoder] = CLIPEncoder

    def __init__(self, root: Path, folder: str, method: str) -> None:
        self._folder = root / folder
        self.settings: dict[str, Any] = json.loads((root / folder / "settings.json").read_text())
        self.inputs = load_file(root / folder / "inputs.safetensors")
        self.outputs = load_file(root / folder / "outputs.safetensors")
        self.common = load_file(root / "common" / "inputs.safetensors")
        weights = {name: t.float() for name, t in load_file(root / "common" / "weights.safetensors").items()}
        self.encoder = self.encoder_class.from_openai_state_dict(
            weights, method=method, mean=OPENAI_MEAN, std=OPENAI_STD
        )
        self.text = self.inputs["text_emb"]

    def second_backbone(self) -> Dinov2Model:
        """The small DINOv2 that stands beside CLIP in this folder's runs."""
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "image_size", "patch_size")
        model = Dinov2Model(Dinov2Config(**{name: self.settings["proxy"][name] for name in names}))
        weights = load_file(self._folder / "weights.safetensors")
        named = {name.removeprefix("proxy."): t.float() for name, t in weights.items() if name.startswith("proxy.")}
        model.load_state_dict(named)
        return model.eval()

    def given_sam(self) -> GivenSAM:
        """Attention of SAM's last block as this folder gives it."""
        q, k, v = (self.inputs[f"sam_{part}_d"] for part in "qkv")
        return GivenSAM(q, k, v)

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
