"""Any ViT CLIP as an encoder: transformers' `CLIPModel` with our own last vision block.

Weights come from a transformers folder or hub id, from OpenAI's names, or from OpenCLIP's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPModel

from ttd.encoders.base import ImageFeatures
from ttd.encoders.clip_towers import CLIPTowers, as_map, build_clip, embed_patches, run_blocks
from ttd.encoders.families import Format, register_encoder
from ttd.encoders.last_block import DEFAULT, LastBlock, class_token, last_block, protocol_name
from ttd.encoders.loading.checkpoints import read_tensors
from ttd.encoders.loading.formats import Source, read_json, weights_file
from ttd.encoders.loading.pretrained import (
    image_processor,
    load_pretrained,
    load_statistics,
    load_tokenizer,
    save_pretrained,
)
from ttd.encoders.tokenizer import CLIP_VOCABULARY, clip_tokenizer
from ttd.errors import ModelError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

# Settings of OpenCLIP's towers that change the computation, and the values that leave it as it is here.
_PLAIN_OPEN_CLIP: dict[str, tuple[Any, ...]] = {
    "timm_model_name": (None,),
    "hf_model_name": (None,),
    "pool_type": (None, "tok", "argmax"),
    "global_average_pool": (None, False),
    "no_causal_mask": (None, False),
    "embed_cls": (None, False),
    "norm_kwargs": (None, {}),
    "act_kwargs": (None, {}),
}


_OPEN_CLIP_CONFIG = "open_clip_config.json"
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
)


@register_encoder(
    "clip",
    Format("hf", model_type="clip"),
    Format("open_clip", config=_OPEN_CLIP_CONFIG, weights=_OPEN_CLIP_WEIGHTS),
    Format("openai", parameters=frozenset({"visual.conv1.weight", "visual.proj", "text_projection"})),
)
class CLIPEncoder(CLIPTowers):
    """CLIP with dense features by one of the published last-block methods (MaskCLIP unless said otherwise).

    Args:
        model: the towers.
        tokenizer: a transformers tokenizer; None if only token ids will be encoded.
        method: a protocol's name ("maskclip", "sclip", "clearclip", "naclip", "values") or a `LastBlock`.
        mean, std: image statistics, OpenAI's by default.
        background: default threshold of `segment` on min-max scaled maps.
        vocabulary: the words that the model knows, None where anything goes.
    """

    takes_method = True

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: Any = None,
        *,
        method: str | LastBlock = DEFAULT,
        mean: tuple[float, float, float] = OPENAI_MEAN,
        std: tuple[float, float, float] = OPENAI_STD,
        background: float = 0.5,
        vocabulary: frozenset[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = model
        self._describe_towers(tokenizer, mean, std)
        self.image_size = int(model.config.vision_config.image_size)
        self.method = last_block(method)
        self.background = background
        self.vocabulary = vocabulary

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> CLIPEncoder:
        """Build the encoder of a folder of transformers or OpenCLIP, or of a file with OpenAI's names."""
        if source.layout == "hf":
            return cls.from_pretrained(source.path, **options)
        if source.tensors is not None:
            return cls.from_openai_state_dict(source.tensors, **options)
        weights = weights_file(source.path, _OPEN_CLIP_WEIGHTS)
        assert weights is not None  # recognise() has looked
        return cls.from_open_clip(read_json(source.path / _OPEN_CLIP_CONFIG), read_tensors(weights), **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> CLIPEncoder:
        """Load a transformers folder or hub id (`model_type` "clip"), in float32.

        Args:
            source: the folder or id.
            options: as for the class; image statistics and tokenizer come from the folder where it has them.
        """
        model = load_pretrained(CLIPModel, source, "clip")
        vocabulary = model.config.text_config.vocab_size
        tokenizer = load_tokenizer(source, default=clip_tokenizer if vocabulary == CLIP_VOCABULARY else None)
        return cls(model, tokenizer, **(load_statistics(source) | options)).eval()

    @classmethod
    def from_openai_state_dict(cls, tensors: Mapping[str, Tensor], **options: Any) -> CLIPEncoder:
        """Build the model whose parameters OpenAI's code would save; every size is read from the tensors.

        Heads have 64 channels, the activation is QuickGELU. float16 parameters are computed with in float32.

        Raises:
            ModelError: parameters are missing, unknown, or not a ViT's (OpenAI's ResNets are not supported).
        """
        return cls._from_openai_names(tensors, {}, {}, "quick_gelu", options)

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], **options: Any) -> CLIPEncoder:
        """Build an OpenCLIP ViT from its `open_clip_config.json` and its parameters.

        Raises:
            ModelError: the config describes towers other than OpenCLIP's own ViT and text transformer.
        """
        shape = config.get("model_cfg", config)
        vision, text = dict(shape.get("vision_cfg", {})), dict(shape.get("text_cfg", {}))
        for part in (vision, text):
            for setting, plain in _PLAIN_OPEN_CLIP.items():
                if part.get(setting) not in plain:
                    raise ModelError(
                        f"this OpenCLIP model has {setting} = {part[setting]}: only its plain ViTs load here"
                    )
        width = tensors["visual.class_embedding"].shape[0] if "visual.class_embedding" in tensors else 0
        vision_heads = {"num_attention_heads": max(1, width // vision.get("head_width", 64))}
        text_heads = {"num_attention_heads": text["heads"]} if "heads" in text else {}
        activation = "quick_gelu" if shape.get("quick_gelu") else "gelu"
        for statistic in ("mean", "std"):
            if statistic in config.get("preprocess_cfg", {}):
                options.setdefault(statistic, tuple(config["preprocess_cfg"][statistic]))
        # OpenCLIP writes the text tower under "text." when the model was declared with `custom_text`.
        renamed = {name.removeprefix("text."): values for name, values in tensors.items()}
        return cls._from_openai_names(renamed, vision_heads, text_heads, activation, options)

    @classmethod
    def _from_openai_names(
        cls,
        tensors: Mapping[str, Tensor],
        vision: Mapping[str, int],
        text: Mapping[str, int],
        activation: str,
        options: Mapping[str, Any],
    ) -> CLIPEncoder:
        model = build_clip(tensors, activation, vision, text)
        vocabulary = model.config.text_config.vocab_size
        tokenizer = clip_tokenizer() if vocabulary == CLIP_VOCABULARY else None
        return cls(model, **{"tokenizer": tokenizer, **options}).eval()

    @property
    def method_name(self) -> str | None:
        """The protocol's name, None for a block of one's own."""
        return protocol_name(self.method)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised pixels `[B,3,H,W]`; dense and pooled share every block but the last."""
        tokens, grid = self._tokens(pixels)
        block = self._clip.vision_model.encoder.layers[-1]
        size = (pixels.shape[-2], pixels.shape[-1])
        return ImageFeatures(
            dense=self._dense(tokens, grid),
            pooled=self._project(class_token(block, tokens)),
            size=size,
            offset=(0, 0),
            padded=size,
        )

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Dense features `[B,C,h,w]`, L2-normalised, float32."""
        return self._dense(*self._tokens(pixels))

    def encode_pooled(self, pixels: Tensor) -> Tensor:
        """The pooled embedding `[B,C]`, without the last block's patches."""
        tokens, _ = self._tokens(pixels)
        return self._project(class_token(self._clip.vision_model.encoder.layers[-1], tokens))

    def save(self, folder: Path) -> None:
        """Write a transformers folder: model, tokenizer, image statistics."""
        size = {"shortest_edge": self.image_size}
        processor = image_processor("CLIPImageProcessor", self.mean, self.std, self.image_size, size)
        save_pretrained(folder, self.backbone, self.tokenizer, processor)

    def lora_targets(self) -> list[str]:
        """q and v of both towers, without the last vision block's q where the method never uses it."""
        vision = len(self._clip.vision_model.encoder.layers)
        text = len(self._clip.text_model.encoder.layers)
        targets = [
            f"{tower}.encoder.layers.{i}.self_attn.{projection}"
            for tower, depth in (("vision_model", vision), ("text_model", text))
            for i in range(depth)
            for projection in ("q_proj", "v_proj")
        ]
        if not self.method.uses_query:
            targets.remove(f"vision_model.encoder.layers.{vision - 1}.self_attn.q_proj")
        return targets

    def _tokens(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The tokens `[B,1+h*w,D]` that enter the last block, and (h, w)."""
        self._check_pixels(pixels, self.patch_size)
        layers = self._clip.vision_model.encoder.layers
        grid = (pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size)
        return run_blocks(layers[:-1], embed_patches(self._clip, pixels)), grid

    def _dense(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        patches = self.method(self._clip.vision_model.encoder.layers[-1], tokens, grid)
        return as_map(self._project(patches), grid)
