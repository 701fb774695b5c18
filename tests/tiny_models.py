"""Small random models for tests: seeded, built in a moment, wide enough to be told apart by their outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.tokenizer import clip_tokenizer

START, END = 49_406, 49_407


def randomised(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Give every parameter seeded random values, biases and norms included: no term is 0 or 1 by luck."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(scale * noise / max(1, parameter[0].numel()) ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * noise)
    return model.eval()


def tiny_clip_model(
    *, layers: int = 2, width: int = 64, patch: int = 16, image: int = 64, vocab: int = 49_408, seed: int = 0
) -> CLIPModel:
    """A transformers CLIPModel with heads of 32 channels (two per tower at width 64)."""
    config = CLIPConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, width // 32),
            "vocab_size": vocab,
            "bos_token_id": vocab - 2,
            "eos_token_id": vocab - 1,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, width // 32),
            "patch_size": patch,
            "image_size": image,
        },
        projection_dim=48,
    )
    model: CLIPModel = randomised(CLIPModel(config), seed)
    return model


def tiny_clip(*, variant: str = "maskclip", **sizes: int) -> CLIPEncoder:
    """A CLIP encoder with the shipped tokenizer; 4 x 4 patches at its native 64 pixels."""
    return CLIPEncoder(tiny_clip_model(**sizes), clip_tokenizer(), variant=variant).eval()


def tiny_siglip_model(*, width: int = 64, vocab: int = 300, seed: int = 0) -> SiglipModel:
    """A transformers SiglipModel: 64 text positions, 4 x 4 patches at 64 pixels."""
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config={**tower, "vocab_size": vocab, "projection_size": width},
        vision_config={**tower, "patch_size": 16, "image_size": 64},
    )
    model: SiglipModel = randomised(SiglipModel(config), seed)
    return model


def random_pixels(batch: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Normalised pixels `[B,3,H,W]`."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
