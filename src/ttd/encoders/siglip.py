"""SigLIP and SigLIP 2 (fixed resolution) as encoders: transformers' `SiglipModel`.

SigLIP has no class token: a learned probe attends to the patches in a pooling head, and only what leaves
that head is aligned with text. So the identity replaces the head's attention: every patch goes alone
through the head's value and output projections, then through its LayerNorm and MLP.

Shapes: B images, h x w patches, D width = C embedding channels, N texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize
from transformers import SiglipConfig, SiglipModel

from ttd.encoders.base import Encoder
from ttd.encoders.calibration import Calibration
from ttd.encoders.clip_towers import as_map, run_blocks
from ttd.encoders.families import Format, register_encoder
from ttd.encoders.features import ImageFeatures
from ttd.encoders.identity import tower_identity
from ttd.encoders.loading.files import load_statistics
from ttd.encoders.loading.formats import Source
from ttd.encoders.loading.pretrained import (
    image_processor,
    load_pretrained,
    local_folder,
    read_config,
    save_pretrained,
)
from ttd.encoders.loading.tokenizers import check_tokenizer, load_tokenizer, tokenize
from ttd.errors import InputError, ModelError

HALF = (0.5, 0.5, 0.5)


# SigLIP 2 of fixed resolution has the model type "siglip" too.
@register_encoder("siglip", Format("hf", model_type="siglip", needs=("tokenizer.json", "spiece.model")))
class SigLIPEncoder(Encoder):
    """SigLIP with dense features by identity attention in its pooling head.

    The text tower looks both ways and pools its last position, so every text is padded to the full length.

    Args:
        model: the towers.
        tokenizer: a transformers tokenizer; None if only token ids will be encoded.
        mean, std: image statistics.
        background: default threshold of `segment` on calibrated maps.
    """

    def __init__(
        self,
        model: SiglipModel,
        tokenizer: Any = None,
        *,
        mean: tuple[float, float, float] = HALF,
        std: tuple[float, float, float] = HALF,
        background: float = 0.5,
    ) -> None:
        super().__init__()
        vision, text = model.config.vision_config, model.config.text_config
        if not model.vision_model.use_head:
            raise ModelError("this SigLIP has no pooling head, so its patches cannot be compared with text")
        self.backbone = model
        self.tokenizer = tokenizer
        self.mean, self.std = mean, std
        self.background = background
        self.patch_size, self.image_size = int(vision.patch_size), int(vision.image_size)
        self.max_tokens = int(text.max_position_embeddings)

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> SigLIPEncoder:
        """Build the encoder of a transformers folder."""
        return cls._from_folder(source.path, source.weights, source.tensors, options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> SigLIPEncoder:
        """Load a transformers folder or hub id (`model_type` "siglip") with its tokenizer, in float32."""
        return cls._from_folder(local_folder(source), None, None, options)

    @classmethod
    def _from_folder(
        cls, folder: Path, weights: Path | None, tensors: Mapping[str, Tensor] | None, options: Mapping[str, Any]
    ) -> SigLIPEncoder:
        config = read_config(folder, SiglipConfig)
        tokenizer = load_tokenizer(folder)
        if tokenizer is not None:
            check_tokenizer(tokenizer, config.text_config.vocab_size, folder)
        model = load_pretrained(SiglipModel, folder, config, weights, tensors)
        return cls(model, tokenizer, **{**load_statistics(folder), **options}).eval()

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines before SigLIP's sigmoid."""
        return float(self._siglip.logit_scale.exp())

    @property
    def default_calibration(self) -> Calibration:
        """SigLIP's own scale and bias, which it was trained with on pooled embeddings: they may saturate on patches."""
        return Calibration(self.logit_scale, -float(self._siglip.logit_bias) / self.logit_scale)

    @property
    def embedding_size(self) -> int:
        """C, the width of the vision tower."""
        return int(self._siglip.config.vision_config.hidden_size)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised pixels `[B,3,H,W]`; dense and pooled share all but the head's attention."""
        patches, grid = self._patches(pixels)
        size = (pixels.shape[-2], pixels.shape[-1])
        return ImageFeatures(
            dense=self._dense(patches, grid),
            pooled=self._pooled(patches),
            size=size,
            offset=(0, 0),
            padded=size,
        )

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Dense features `[B,C,h,w]`, L2-normalised, float32."""
        return self._dense(*self._patches(pixels))

    def encode_pooled(self, pixels: Tensor) -> Tensor:
        """The pooled embedding `[B,C]`, without the patches' way through the head."""
        return self._pooled(self._patches(pixels)[0])

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Token ids `[N,max_tokens]` of the lower-cased texts, and which were cut."""
        if self.tokenizer is None:
            raise ModelError("this SigLIP comes without a tokenizer: put its tokenizer files into the model's folder")
        return tokenize(self.tokenizer, [text.lower() for text in texts], self.max_tokens, self.max_tokens)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Text embeddings `[N,C]` of ids padded to `max_tokens`, float32, not normalised."""
        if token_ids.shape[0] == 0:
            return torch.zeros(0, self.embedding_size, device=self.device)
        if token_ids.shape[1] != self.max_tokens:
            raise InputError(f"SigLIP's texts are padded to {self.max_tokens} tokens, not {token_ids.shape[1]}")
        pooled: Tensor = self._siglip.text_model(input_ids=token_ids.to(self.device)).pooler_output
        return pooled.float()

    def save(self, folder: Path) -> None:
        """Write a transformers folder: model, tokenizer, image statistics."""
        size = {"height": self.image_size, "width": self.image_size}
        processor = image_processor("SiglipImageProcessor", self.mean, self.std, self.image_size, size)
        save_pretrained(folder, self.backbone, self.tokenizer, processor)

    def lora_targets(self) -> list[str]:
        """q and v of both towers; the pooling head stays as it is."""
        return [
            f"{tower}.encoder.layers.{i}.self_attn.{projection}"
            for tower in ("vision_model", "text_model")
            for i in range(len(getattr(self._siglip, tower).encoder.layers))
            for projection in ("q_proj", "v_proj")
        ]

    def identity(self) -> dict[str, Any]:
        """Besides what every model has: activation, heads and norms of both towers, and how texts are padded."""
        config, tokenizer = self._siglip.config, self.tokenizer
        return {
            **super().identity(),
            "vision": tower_identity(config.vision_config),
            "text": tower_identity(config.text_config),
            "padding": None if tokenizer is None else [tokenizer.pad_token_id, tokenizer.padding_side],
        }

    @property
    def _siglip(self) -> Any:
        return self.backbone

    def _patches(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What enters the pooling head, `[B,h*w,D]`, and (h, w)."""
        self._check_pixels(pixels, self.patch_size)
        vision = self._siglip.vision_model
        x = vision.embeddings(pixels.to(self.dtype), interpolate_pos_encoding=True)
        grid = (pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size)
        return vision.post_layernorm(run_blocks(vision.encoder.layers, x)), grid

    def _pooled(self, patches: Tensor) -> Tensor:
        """The head as it was trained: `[B,h*w,D]` -> `[B,C]`."""
        return normalize(self._siglip.vision_model.head(patches).float(), dim=-1)

    def _dense(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """The head with the identity in place of its attention: `[B,h*w,D]` -> `[B,C,h,w]`."""
        head = self._siglip.vision_model.head
        value_weight = head.attention.in_proj_weight.chunk(3)[2]
        value_bias = head.attention.in_proj_bias.chunk(3)[2]
        attended = head.attention.out_proj(linear(patches, value_weight, value_bias))
        embedded = attended + head.mlp(head.layernorm(attended))
        return as_map(normalize(embedded.float(), dim=-1), grid)
