"""A second vision model besides CLIP, for methods that use its patch similarities.

Its code is transformers' own: nothing from a hub is run, and weights are read as those of every model here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ttd.encoders.loading.files import load_statistics, model_type
from ttd.encoders.loading.pretrained import CONFIG, load_pretrained, read_config
from ttd.encoders.registry import find_folder
from ttd.errors import ModelError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Kind in config.json -> a parameter that its weights have, and tokens before the patches besides the class token.
_KINDS = {
    "dinov2": "embeddings.patch_embeddings.projection.weight",
    "dinov2_with_registers": "embeddings.patch_embeddings.projection.weight",
    "dinov3_vit": "embeddings.patch_embeddings.weight",
    "vit": "embeddings.patch_embeddings.projection.weight",
}


class SecondBackbone(nn.Module):
    """Patches of a vision transformer of transformers.

    Args:
        model: transformers' model; its last hidden state holds the class token, registers, then the patches.
        mean, std: by which its pixels are normalised.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: Any,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.model = model
        self.patch_size = int(model.config.patch_size)
        self._before = 1 + int(getattr(model.config, "num_register_tokens", 0) or 0)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, colours: Tensor) -> Tensor:
        """Colours in 0..1 `[B,3,H,W]` -> patches `[B,C,I,J]`, float32, without gradients.

        Where H or W is not a multiple of its patch, they are resized to the nearest.
        """
        size = tuple(max(1, round(side / self.patch_size)) * self.patch_size for side in colours.shape[-2:])
        if size != tuple(colours.shape[-2:]):
            colours = interpolate(colours, size, mode="bilinear", align_corners=False, antialias=True)
        pixels = (colours - self.mean) / self.std
        more = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        with torch.no_grad():
            tokens = self.model(pixels.to(next(self.model.parameters()).dtype), **more).last_hidden_state
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        found: Tensor = tokens[:, self._before :].float().transpose(1, 2).reshape(len(colours), -1, *grid)
        return found


def load_second_backbone(name: str | Path, device: torch.device | str = "cpu") -> SecondBackbone:
    """Load a second backbone, in float32 and evaluation mode.

    Args:
        name: a folder or hub id.
        device: where it runs.

    Raises:
        ModelError: it is missing, damaged, or of another kind.
    """
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    folder = find_folder(name, "second backbone", _KINDS)
    kind = model_type(folder / CONFIG)
    if kind not in _KINDS:
        raise ModelError(
            f"{folder} holds a {kind!r} model, which cannot be a second backbone: choose one of {', '.join(_KINDS)}"
        )
    config = read_config(folder, CONFIG_MAPPING[kind])
    more: dict[str, Any] = {"add_pooling_layer": False} if kind == "vit" else {}
    model = load_pretrained(MODEL_MAPPING[type(config)], folder, config, anchor=_KINDS[kind], **more)
    return SecondBackbone(model, **load_statistics(folder)).to(device).eval()


@dataclass(frozen=True)
class NamedBackbone:
    """`Method.second_backbone` by name; another one takes its place by `--proxy-model`."""

    name: str | Path
    count: ClassVar[int] = 1

    def __call__(self, device: torch.device) -> SecondBackbone:
        """See `load_second_backbone`."""
        return load_second_backbone(self.name, device)

    def named(self, name: str | Path) -> NamedBackbone:
        """Another one; of "PROXY,SAM" the first."""
        return NamedBackbone(str(name).partition(",")[0])
