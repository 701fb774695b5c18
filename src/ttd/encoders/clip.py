"""Any ViT CLIP as an encoder: transformers' `CLIPModel` with our own last vision block.

Weights come from a transformers folder or hub id, from OpenAI's names, or from OpenCLIP's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from ttd.encoders.calibration import Calibration
from ttd.encoders.clip_towers import (
    CLIPTowers,
    as_map,
    build_clip,
    embed_patches,
    end_token,
    pools_at_highest,
    run_blocks,
)
from ttd.encoders.families import Format, register_encoder
from ttd.encoders.features import ImageFeatures, Raised
from ttd.encoders.last_block import class_token
from ttd.encoders.loading.clip_files import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    OPENAI_PARAMETERS,
    check_openai_width,
    note_activation,
    open_clip_parameters,
    openai_to_hf,
    read_open_clip,
)
from ttd.encoders.loading.files import load_statistics, read_json
from ttd.encoders.loading.formats import Source
from ttd.encoders.loading.pretrained import (
    image_processor,
    load_pretrained,
    local_folder,
    read_config,
    save_pretrained,
)
from ttd.encoders.loading.tokenizers import CLIP_VOCABULARY, check_tokenizer, clip_tokenizer, load_tokenizer
from ttd.encoders.loading.weights import check_values, read_weights
from ttd.encoders.methods import DEFAULT, Context, LastBlock, Method, Patches, find_method

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
WINDOWS_AT_ONCE = 8  # in the blocks, where a method gets all windows of an image together


@register_encoder(
    "clip",
    Format("hf", model_type="clip"),
    Format("open_clip", config=OPEN_CLIP_CONFIG, weights=OPEN_CLIP_WEIGHTS),
    Format("openai", parameters=OPENAI_PARAMETERS),
)
class CLIPEncoder(CLIPTowers):
    """CLIP with dense features and maps by one of the methods of `ttd.encoders.methods`.

    Where its method looks at them, the `extras` of its features are "pixels", "places", "class_token" and what its hook
    `patches` gave, see `Context`.

    Args:
        model: the towers.
        tokenizer: a transformers tokenizer; None if only token ids will be encoded.
        method: a method, or its name ("maskclip", "sclip", "clearclip", "naclip", "values", ...).
        mean, std: image statistics, OpenAI's by default.
        background: default threshold of `segment` on calibrated maps.
        vocabulary: the words that the model knows, None where anything goes.
    """

    takes_method = True

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: Any = None,
        *,
        method: str | Method = DEFAULT,
        mean: tuple[float, float, float] = OPENAI_MEAN,
        std: tuple[float, float, float] = OPENAI_STD,
        background: float = 0.5,
        vocabulary: frozenset[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = model
        self._describe_towers(tokenizer, mean, std)
        self.image_size = int(model.config.vision_config.image_size)
        self.method: Method = find_method(method) if isinstance(method, str) else method
        self.default_refinement = self.method.refine
        make = self.method.second_backbone
        self._second = None if make is None else _SecondBackbone(make)
        self.background = background
        self.vocabulary = vocabulary

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> CLIPEncoder:
        """Build the encoder of a folder of transformers or OpenCLIP, or of a file with OpenAI's names."""
        if source.layout == "hf":
            return cls._from_folder(source.path, source.weights, source.tensors, options)
        assert source.weights is not None  # recognise() has looked
        tensors = read_weights(source.weights) if source.tensors is None else source.tensors
        check_values(tensors, source.weights)
        if source.layout == "openai":
            note_activation(source.path, tensors)
            return cls.from_openai_state_dict(tensors, **options)
        config = read_json(source.path / OPEN_CLIP_CONFIG)
        options = load_statistics(source.path) | options
        return cls.from_open_clip(config, open_clip_parameters(tensors, source.weights), **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> CLIPEncoder:
        """Load a transformers folder or hub id (`model_type` "clip"), in float32.

        Args:
            source: the folder or id.
            options: as for the class; image statistics and tokenizer come from the folder where it has them.
        """
        return cls._from_folder(local_folder(source), None, None, options)

    @classmethod
    def _from_folder(
        cls, folder: Path, weights: Path | None, tensors: Mapping[str, Tensor] | None, options: Mapping[str, Any]
    ) -> CLIPEncoder:
        config = read_config(folder, CLIPConfig)
        text = config.text_config
        tokenizer = load_tokenizer(folder, default=clip_tokenizer if text.vocab_size == CLIP_VOCABULARY else None)
        text.eos_token_id = end_token(text, tokenizer, folder)
        if tokenizer is not None:
            end: int | Literal["highest"] = "highest" if pools_at_highest(text) else text.eos_token_id
            check_tokenizer(tokenizer, text.vocab_size, folder, end=end)
        model = load_pretrained(CLIPModel, folder, config, weights, tensors, openai_to_hf)
        return cls(model, tokenizer, **{**load_statistics(folder), **options}).eval()

    @classmethod
    def from_openai_state_dict(cls, tensors: Mapping[str, Tensor], **options: Any) -> CLIPEncoder:
        """Build the model whose parameters OpenAI's code would save; every size is read from the tensors.

        Heads have 64 channels, the activation is QuickGELU. float16 parameters are computed with in float32.

        Raises:
            ModelError: parameters are missing, unknown, or not a ViT's (OpenAI's ResNets are not supported).
        """
        check_openai_width(tensors)
        return cls._from_openai_names(tensors, {}, {}, "quick_gelu", options)

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], **options: Any) -> CLIPEncoder:
        """Build an OpenCLIP ViT from its `open_clip_config.json` and its parameters.

        Raises:
            ModelError: the config describes towers other than OpenCLIP's own ViT and text transformer.
        """
        towers = read_open_clip(config, tensors)
        options |= towers.statistics  # its own word counts before that of a transformers file beside it
        return cls._from_openai_names(towers.parameters, towers.vision, towers.text, towers.activation, options)

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

    def with_method(self, name: str | Method) -> CLIPEncoder:
        """Another encoder on the same towers whose features become maps by another method; this one stays."""
        other = type(self)(
            self.backbone,
            self.tokenizer,
            method=name,
            mean=self.mean,
            std=self.std,
            background=self.background,
            vocabulary=self.vocabulary,
        )
        fitted = self._calibration if other.method.calibration is None else None
        cut = self._caption_threshold
        return other.configured(self.image_size, caption_threshold=cut, calibration=fitted, domain=self.domain).train(
            self.training
        )

    @property
    def default_calibration(self) -> Calibration:
        """The method's, where it gives no cosines, else what suits OpenAI's CLIPs."""
        return self.method.calibration or super().default_calibration

    def second_backbone(self) -> Any:
        """What the method's `second_backbone` made on this device, loaded where it is not yet; None without one.

        Raises:
            ModelError: it is missing, damaged, or of another kind.
        """
        return None if self._second is None else self._second(self.device)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised pixels `[B,3,H,W]`; dense and pooled share every block but the last."""
        return self.encode_windows(pixels, None)

    def encode_windows(
        self, pixels: Tensor, places: Tensor | None, image: Tensor | None = None, original: Tensor | None = None
    ) -> ImageFeatures:
        """`encode_image` that tells the method where the windows lie; with `image` all windows of that one together."""
        if self.method.together and image is None:
            whole = [self._whole_image(one) for one in torch.split(pixels, 1)]
            return ImageFeatures.joined(whole)
        states, grid = self._states(pixels)
        context = self._context(pixels, places, image, original)
        found = self._patches(states, grid, context)
        pooled = self._project(class_token(self._blocks[-1], states[-1]))
        size = (pixels.shape[-2], pixels.shape[-1])
        extras: dict[str, Tensor] = {}
        if image is not None:
            context, size = replace(context, pixels=image, places=None), (image.shape[-2], image.shape[-1])
            pooled = normalize(pooled.mean(0, keepdim=True), dim=-1)
        if self.method.similarity is not None or self.method.finish is not None:
            known = {name: getattr(context, name) for name in ("pixels", "places")}
            if found.class_token is not None:
                known["class_token"] = self._project(found.class_token)
            extras = {name: t for name, t in {**found.extras, **known}.items() if t is not None}
        dense = as_map(self._project(found.tokens), found.grid)
        return ImageFeatures(dense, pooled, size, offset=(0, 0), padded=size, extras=extras)

    @property
    def together(self) -> bool:
        """See `Method.together`."""
        return self.method.together

    def encode_for_similarity(self, pixels: Tensor) -> ImageFeatures:
        """The dense features, and what the method's own `similarity` and `finish` look at."""
        if self.method.similarity is None and self.method.finish is None:
            return super().encode_for_similarity(pixels)
        return self.encode_image(pixels)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Dense features `[B,C,h,w]`, L2-normalised, float32."""
        if self.method.together:
            return self.encode_image(pixels).dense
        states, grid = self._states(pixels)
        found = self._patches(states, grid, self._context(pixels, None))
        return as_map(self._project(found.tokens), found.grid)

    def encode_pooled(self, pixels: Tensor) -> Tensor:
        """The pooled embedding `[B,C]`, without the last block's patches."""
        return self._project(class_token(self._blocks[-1], self._states(pixels)[0][-1]))

    def similarity(self, features: ImageFeatures, text: Tensor, classes: Tensor | None = None) -> Tensor:
        """Raw cosines of every cell and text, or the method's logits: `[B,N,h,w]` over the padded grid.

        Args:
            features: B images.
            text: `[N,C]` or `[B,N,C]`.
            classes: int64 `[N]`, see `Context.classes`.
        """
        found = self.logits(features, text, classes)
        return found.whole() if isinstance(found, Raised) else found

    def logits(self, features: ImageFeatures, text: Tensor, classes: Tensor | None = None) -> Tensor | Raised:
        """See `Encoder`."""
        method = self.method
        if method.similarity is None and method.finish is None:
            return super().similarity(features, text)
        extras = dict(features.extras)
        pixels = features.extra("pixels", "the pixels")
        known = {name: extras.pop(name, None) for name in ("pixels", "places", "class_token")}
        context = replace(
            self._context(pixels, known["places"]),
            class_token=known["class_token"],
            extras=extras,
            classes=classes,
        )
        if method.similarity is None:
            sim = super().similarity(features, text)
        else:
            sim = method.similarity(features.dense, features.pooled, normalize(text.float(), dim=-1), context)
        return sim if method.finish is None else method.finish(sim, context)

    def save(self, folder: Path) -> None:
        """Write a transformers folder: model, tokenizer, image statistics."""
        size = {"shortest_edge": self.image_size}
        processor = image_processor("CLIPImageProcessor", self.mean, self.std, self.image_size, size)
        save_pretrained(folder, self.backbone, self.tokenizer, processor)

    def lora_targets(self) -> list[str]:
        """q and v of both towers, without the last vision block's q where the method never uses it."""
        vision = len(self._blocks)
        text = len(self._clip.text_model.encoder.layers)
        targets = [
            f"{tower}.encoder.layers.{i}.self_attn.{projection}"
            for tower, depth in (("vision_model", vision), ("text_model", text))
            for i in range(depth)
            for projection in ("q_proj", "v_proj")
        ]
        if self.method.patches is None or not self.method.uses_query:
            targets.remove(f"vision_model.encoder.layers.{vision - 1}.self_attn.q_proj")
        return targets

    @property
    def _blocks(self) -> Any:
        return self._clip.vision_model.encoder.layers

    def _states(self, pixels: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """The tokens `[B,1+h*w,D]` that enter the last block, or each block where the method asks, and (h, w)."""
        self._check_pixels(pixels, self.patch_size)
        grid = (pixels.shape[-2] // self.patch_size, pixels.shape[-1] // self.patch_size)
        parts = [
            self._states_of(part)
            for part in torch.split(pixels, WINDOWS_AT_ONCE if self.method.together else len(pixels))
        ]
        return [torch.cat(several) if len(several) > 1 else several[0] for several in zip(*parts, strict=True)], grid

    def _states_of(self, pixels: Tensor) -> list[Tensor]:
        tokens = embed_patches(self._clip, pixels, self.method.positions)
        if not self.method.every_state:
            return [run_blocks(self._blocks[:-1], tokens)]
        states = [tokens]
        for block in self._blocks[:-1]:
            states.append(run_blocks([block], states[-1]))
        return states

    def _whole_image(self, image: Tensor) -> ImageFeatures:
        """An image `[1,3,H,W]` as its own only window."""
        place = torch.tensor([[0, 0, image.shape[-2], image.shape[-1], 0]])
        return self.encode_windows(image, place, image)

    def _context(
        self, pixels: Tensor, places: Tensor | None, image: Tensor | None = None, original: Tensor | None = None
    ) -> Context:
        return Context(
            pixels,
            self.mean,
            self.std,
            None if places is None else places.to(pixels.device),
            image,
            original,
            self.second_backbone(),
            encode_text=self.encode_text,
        )

    def _patches(self, states: list[Tensor], grid: tuple[int, int], context: Context) -> Patches:
        found = (self.method.patches or LastBlock())(self._blocks, states, grid, context)
        return found if isinstance(found, Patches) else Patches(found, grid)


class _SecondBackbone:
    """A method's second backbone, made when it is first needed; no part of the encoder's own parameters."""

    def __init__(self, make: Callable[[torch.device], Any]) -> None:
        self._make = make
        self._made: tuple[torch.device, Any] | None = None

    def __call__(self, device: torch.device) -> Any:
        """What was made for the device; its parameters take no gradient."""
        if self._made is None or self._made[0] != device:
            made = self._make(device)
            if isinstance(made, torch.nn.Module):
                made.requires_grad_(False).eval()
            self._made = device, made
        return self._made[1]
