"""TCL (kakaobrain/tcl, CVPR 2023): a frozen CLIP whose trained last block and decoder give calibrated masks.

Two branches share the first blocks: the trained copy of the last block feeds a decoder (dense features at
H/4 x W/4); the frozen last block gives MaskCLIP features, mixed into the final mask to keep what CLIP knew.

Shapes: B images, N texts, C embedding channels, D width, h x w patches, H/4 x W/4 cells of the decoder's map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pad
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from ttd.encoders.calibration import OPENAI_LIKE, Calibration
from ttd.encoders.clip_towers import CLIPTowers, as_map, build_clip, embed_patches, run_blocks
from ttd.encoders.families import Format, register_encoder
from ttd.encoders.features import PLAIN_MAPS, ImageFeatures, MapQuestion, cosine_maps
from ttd.encoders.last_block import class_token, dense_patches
from ttd.encoders.loading import tcl_names
from ttd.encoders.loading.checkpoints import write_tensors
from ttd.encoders.loading.formats import Source
from ttd.encoders.loading.openai_names import clip_to_openai, under
from ttd.encoders.loading.tokenizers import CLIP_VOCABULARY, clip_tokenizer
from ttd.encoders.loading.weights import check_values
from ttd.encoders.tcl_decoder import TCLDecoder
from ttd.errors import InputError, ModelError
from ttd.refine.pamr import pamr as refine_with_pamr

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_LOGIT_SCALE = math.log(100)  # where OpenAI's training ended; TCL's checkpoint does not repeat it
CLIP_WEIGHT = 0.3
ROUNDING = 1e-5
WEIGHTS = "tcl.safetensors"


class TCLBackbone(nn.Module):
    """Every parameter of TCL: the CLIP, the trained blocks, the decoder, the projection, the calibration."""

    def __init__(self, clip: CLIPModel, head: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.clip = clip
        vision = clip.config.vision_config
        blocks = 1 + max(int(name.split(".")[1]) for name in head if name.startswith("trained_blocks."))
        with torch.device("meta"):  # every parameter is assigned below
            self.trained_blocks = nn.ModuleList(CLIPEncoderLayer(vision) for _ in range(blocks))
            self.decoder = TCLDecoder.from_official(under(head, "decoder."))
            self.image_norm = nn.LayerNorm(vision.hidden_size)
            self.image_projection = nn.Linear(vision.hidden_size, clip.config.projection_dim, bias=False)
            self.mask_scale = nn.Parameter(torch.empty(()))
            self.mask_shift = nn.Parameter(torch.empty(()))
        copies = {name: t.detach().to(torch.float32, copy=True).contiguous() for name, t in head.items()}
        clip_state = {f"clip.{name}": values for name, values in clip.state_dict(keep_vars=True).items()}
        try:
            self.load_state_dict({**copies, **clip_state}, assign=True)
        except RuntimeError as error:
            raise ModelError(f"the checkpoint does not fit TCL: {str(error).splitlines()[-1].strip()}") from error


@register_encoder(
    "tcl",
    Format("tcl", parameters=frozenset({"masker.sim2mask.w", "clip_image_encoder.clip_visual.conv1.weight"})),
)
class TCLEncoder(CLIPTowers):
    """TCL behind the encoders' contract; text comes from its CLIP, image statistics are ImageNet's.

    Pixels of any size are zero-padded, centred, to full patches; features and maps cover the padded image,
    and `ImageFeatures` says where the image lies in it. Its `extras`: "clip_dense", the frozen CLIP branch
    `[B,C,h,w]`, L2-normalised, and "pixels", the padded input `[B,3,H,W]`, normalised, that PAMR looks at.

    Args:
        backbone: all parameters.
        tokenizer: a transformers tokenizer; None if only token ids will be encoded.
        background: default threshold of `segment`.
        training_only: parameters of TCL's losses, which only the official format needs.
    """

    averages = "maps"
    pads = True
    looked_at = "calibrated"
    refined_inside = ("pamr",)
    pruning_size = 224  # the authors scored with TCL at this side
    single_file_adapters = True
    default_refinement = "pamr"
    usual_templates = "tcl9"
    # The authors' thresholds where they are not 0.40 (TTD's README).
    backgrounds: ClassVar[Mapping[str, float]] = dict.fromkeys(
        ("coco-object", "ade20k", "context59", "context60"), 0.45
    )

    def __init__(
        self,
        backbone: TCLBackbone,
        tokenizer: Any = None,
        *,
        background: float = 0.4,
        training_only: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self._describe_towers(tokenizer, IMAGENET_MEAN, IMAGENET_STD)
        self.image_size = 448
        self.background = background
        self._training_only = dict(training_only or {})

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> TCLEncoder:
        """Build the encoder of a file in the official names."""
        assert source.tensors is not None  # the only format is a file
        check_values(source.tensors, source.path)
        return cls.from_state_dict(source.tensors, **options)

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor], **options: Any) -> TCLEncoder:
        """Build the model of a checkpoint in the official names; every size is read from the tensors.

        float16 parameters are computed with in float32.

        Raises:
            ModelError: parameters are missing, unknown or do not fit together.
        """
        clip_tensors = tcl_names.clip_part(tensors) | {"logit_scale": torch.tensor(CLIP_LOGIT_SCALE)}
        head = tcl_names.head_to_ours(tensors)
        clip = build_clip(clip_tensors)
        vocabulary = clip.config.text_config.vocab_size
        tokenizer = clip_tokenizer() if vocabulary == CLIP_VOCABULARY else None
        losses = {name: values.detach().clone() for name, values in tensors.items() if tcl_names.is_training_only(name)}
        encoder = cls(TCLBackbone(clip, head), **{"tokenizer": tokenizer, "training_only": losses, **options}).eval()
        unknown = sorted(set(tensors) - set(encoder.to_official_state_dict()))
        if unknown:
            raise ModelError(f"the checkpoint has parameters that TCL does not have: {', '.join(unknown[:3])}")
        return encoder

    def to_official_state_dict(self) -> dict[str, Tensor]:
        """Every parameter under its official name, detached and contiguous: the inverse of `from_state_dict`.

        Raises:
            ModelError: an adapter is still attached.
        """
        state = {name: values.detach() for name, values in self.backbone.state_dict().items()}
        if any("lora_" in name for name in state):
            raise ModelError("an adapter is attached: merge it before writing the model in the official format")
        openai = clip_to_openai(under(state, "clip."))
        del openai["logit_scale"]
        head = {name: values for name, values in state.items() if not name.startswith("clip.")}
        official = tcl_names.clip_part_to_official(openai)
        official |= tcl_names.head_to_official(head, self._first_trained)
        official |= self._training_only
        return {name: values.contiguous() for name, values in official.items()}

    def save(self, folder: Path) -> None:
        """Write `tcl.safetensors` with the official names, in float32."""
        write_tensors(self.to_official_state_dict(), folder / WEIGHTS)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised pixels `[B,3,H,W]` of any size, with both branches; `dense` is at H/4 x W/4."""
        padded, offset = self._pad(pixels)
        tokens, grid = self._shared_tokens(padded)
        layers = self._clip.vision_model.encoder.layers
        frozen = run_blocks(layers[self._first_trained : -1], tokens)
        clip_patches = dense_patches(layers[-1], frozen, grid)
        return ImageFeatures(
            dense=self._decode(tokens, grid),
            pooled=self._project(class_token(layers[-1], frozen)),
            size=(pixels.shape[-2], pixels.shape[-1]),
            offset=offset,
            padded=(padded.shape[-2], padded.shape[-1]),
            extras={"clip_dense": as_map(self._project(clip_patches), grid), "pixels": padded},
        )

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Dense features `[B,C,H/4,W/4]` of the padded pixels, L2-normalised, without the frozen branch."""
        padded, _ = self._pad(pixels)
        return self._decode(*self._shared_tokens(padded))

    def encode_pooled(self, pixels: Tensor) -> Tensor:
        """The frozen CLIP's pooled embedding `[B,C]`, without the trained branch and its decoder."""
        tokens, _ = self._shared_tokens(self._pad(pixels)[0])
        layers = self._clip.vision_model.encoder.layers
        return self._project(class_token(layers[-1], run_blocks(layers[self._first_trained : -1], tokens)))

    @property
    def default_calibration(self) -> Calibration:
        """What TCL learned: its `w`, and `c = -b / w`."""
        w, b = float(self._network.mask_scale), float(self._network.mask_shift)
        if not w > 0:
            raise ModelError(f"the slope of this TCL's masks is {w}, not above 0: the checkpoint is damaged")
        return Calibration(w, -b / w)

    def maps(self, features: ImageFeatures, text: Tensor, question: MapQuestion = PLAIN_MAPS) -> Tensor:
        """Calibrated masks in 0..1, `[B,N,H/4,W/4]` over the padded image.

        `(1-k) * sigmoid(w * cos + b) + k * sigmoid((cos_clip - 0.25) * 10)`, PAMR before the mix; the second
        sigmoid comes before its map is resized.

        Args:
            features: B images.
            text: `[N,C]` or `[B,N,C]`, normalised here.
            question: `refine="pamr"` refines with PAMR at this resolution, with a `threshold` only those texts whose
                mask may reach it whatever PAMR does; `clip_weight` is k, by default 0.3, and 0 leaves the frozen
                branch out.
        """
        clip_weight = CLIP_WEIGHT if question.clip_weight is None else question.clip_weight
        if not 0 <= clip_weight <= 1:
            raise InputError(f"clip_weight must be in 0..1, not {clip_weight}")
        mask = self._calibrated(features, text)
        prior = self._clip_prior(features, text, mask) if clip_weight else None
        if question.refine == "pamr":
            needed = _can_reach(question.threshold, mask, prior, clip_weight)
            mask = mask.clone()
            mask[:, needed] = self._refine(features, mask[:, needed])
        return mask if prior is None else (1 - clip_weight) * mask + clip_weight * prior

    def masks(self, pixels: Tensor, text: Tensor, pamr: bool = False, clip_weight: float = CLIP_WEIGHT) -> Tensor:
        """TCL's final masks at the pixels' own size, `[B,N,H,W]` in 0..1.

        Args:
            pixels: normalised, `[B,3,H,W]`, any size.
            text: `[N,C]` or `[B,N,C]`, normalised here.
            pamr: refine with PAMR at the maps' resolution.
            clip_weight: k in 0..1, see `maps`.
        """
        features = self.encode_image(pixels)
        question = MapQuestion(refine="pamr" if pamr else "none", clip_weight=clip_weight)
        return features.enlarge(self.maps(features, text, question))

    def lora_targets(self) -> list[str]:
        """q and v of the shared and the trained blocks and of the text tower, the decoder's convolutions.

        The frozen branch's own blocks stay as they are, and the last trained block never uses its q.
        """
        text = len(self._clip.text_model.encoder.layers)
        trained = len(self._network.trained_blocks)
        blocks = [f"clip.vision_model.encoder.layers.{i}" for i in range(self._first_trained)]
        blocks += [f"clip.text_model.encoder.layers.{i}" for i in range(text)]
        blocks += [f"trained_blocks.{i}" for i in range(trained)]
        targets = [f"{block}.self_attn.{p}" for block in blocks for p in ("q_proj", "v_proj")]
        targets.remove(f"trained_blocks.{trained - 1}.self_attn.q_proj")
        return targets + [f"decoder.{name}" for name in self._network.decoder.conv_names()]

    @property
    def _network(self) -> Any:
        return self.backbone

    @property
    def _clip(self) -> Any:
        return self._network.clip

    @property
    def _first_trained(self) -> int:
        return len(self._clip.vision_model.encoder.layers) - len(self._network.trained_blocks)

    def _average_templates(self, embeddings: Tensor) -> Tensor:
        """`[N,T,C]` -> `[N,C]`: TCL averages the templates' embeddings as they are, then normalises."""
        return normalize(embeddings.mean(1), dim=-1)

    def _pad(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pixels with zeros around them up to full patches, and (top, left)."""
        self._check_pixels(pixels, 1)
        down, across = (-side % self.patch_size for side in pixels.shape[-2:])
        top, left = down // 2, across // 2
        return pad(pixels, (left, across - left, top, down - top)), (top, left)

    def _shared_tokens(self, padded: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The tokens `[B,1+h*w,D]` where the two branches part, and (h, w)."""
        grid = (padded.shape[-2] // self.patch_size, padded.shape[-1] // self.patch_size)
        layers = self._clip.vision_model.encoder.layers
        return run_blocks(layers[: self._first_trained], embed_patches(self._clip, padded)), grid

    def _decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The trained branch: tokens `[B,1+h*w,D]` -> dense features `[B,C,H/4,W/4]`."""
        network = self._network
        tokens = run_blocks(network.trained_blocks[:-1], tokens)
        patches = dense_patches(network.trained_blocks[-1], tokens, grid)
        decoded = network.decoder(as_map(patches, grid)).permute(0, 2, 3, 1)  # (B, H/4, W/4, D)
        embedded = network.image_projection(network.image_norm(decoded)).float()
        return normalize(embedded, dim=-1).permute(0, 3, 1, 2)

    def _calibrated(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """The trained branch's masks in 0..1: `sigmoid(w * cos + b)`, or by another calibration; `[B,N,H/4,W/4]`."""
        sim = self.similarity(features, text)
        if self._calibration is not None:
            return self._calibration(sim)
        return torch.sigmoid(self._network.mask_scale.float() * sim + self._network.mask_shift.float())

    def _clip_prior(self, features: ImageFeatures, text: Tensor, like: Tensor) -> Tensor:
        """The frozen branch's opinion in 0..1, at the masks' grid."""
        sim = cosine_maps(features.extra("clip_dense", "the CLIP branch"), text)
        return interpolate(OPENAI_LIKE(sim), like.shape[-2:], mode="bilinear")

    def _refine(self, features: ImageFeatures, masks: Tensor) -> Tensor:
        """PAMR on the masks' own grid."""
        pixels = features.extra("pixels", "the pixels")
        if masks.shape[1] == 0:
            return masks
        small = interpolate(pixels.float(), masks.shape[-2:], mode="bilinear", align_corners=True)
        return refine_with_pamr(small, masks)


def _can_reach(threshold: float | None, masks: Tensor, prior: Tensor | None, clip_weight: float) -> Tensor:
    """Which texts PAMR may lift to the threshold in some image, bool `[N]`.

    PAMR averages neighbours, so no mask grows beyond its own maximum.
    """
    if threshold is None:
        return torch.ones(masks.shape[1], dtype=torch.bool, device=masks.device)
    highest = masks.amax((-2, -1))
    if prior is not None:
        highest = (1 - clip_weight) * highest + clip_weight * prior.amax((-2, -1))
    return (highest >= threshold - ROUNDING).any(0)
