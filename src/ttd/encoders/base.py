"""What every encoder promises: image and text in, normalised features and cosine maps out (`features`).

The rest of the package sees only `Encoder` and `ImageFeatures`; a family of encoders is one subclass and one
`@register_encoder(...)` (docs/adding-an-encoder.md).

Shapes: B images, N texts, C embedding channels, L tokens, H x W pixels, h x w cells of a feature map.
"""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from tqdm import tqdm

from ttd.encoders.calibration import OPENAI_LIKE, Calibration
from ttd.encoders.features import PLAIN_MAPS, ImageFeatures, MapQuestion, Raised, cosine_maps
from ttd.encoders.identity import fingerprint, statistics_identity, tokenizer_identity
from ttd.errors import InputError, ModelError

if TYPE_CHECKING:
    from ttd.encoders.domain import Domain
    from ttd.encoders.loading.formats import Source
    from ttd.encoders.methods import Method

Self = TypeVar("Self", bound="Encoder")

TEXTS_PER_CHUNK = 256
PROMPTS_AT_ONCE = 8192  # whose embeddings are held before they are averaged, 16 MB at 512 channels


class Encoder(nn.Module, ABC):
    """An image tower and a text tower with one embedding space.

    Attributes:
        kind: the family's name, see `register_encoder`.
        mean, std: statistics with which pixels in 0..1 are normalised.
        patch_size: the sides of `pixels` are multiples of this (TCL pads by itself).
        image_size: the native side in pixels.
        max_tokens: longest text in tokens, start and end included.
        background: default threshold under which a calibrated map means background.
        caption_threshold: default threshold of a caption's mask.
        backgrounds: thresholds of its own for single data sets, by their names.
        averages: what is averaged over the views of an image: "cosines", which are then calibrated, or "maps".
        looked_at: how heat maps for people are scaled: each by itself ("norm"), or "calibrated".
        pads: whether `encode_image` takes sides that are not multiples of `patch_size`.
        refined_inside: refinements that `maps` does itself, at the encoder's own resolution.
        default_refinement: what `refine="auto"` means.
        usual_templates: by name, for classes and captions of an open vocabulary.
        domain: tells images that a small model learned from from others, None where anything goes.
        vocabulary: the words that a small model knows, None where anything goes.
        backbone: the module that adapters attach to, holding every adaptable layer.
        text_tower: stands in the names of those of its layers that belong to the text tower.
        takes_method: whether a method (`--method`) says how the last block gives dense features.
        method: that method; None where there is one way.
        single_file_adapters: whether an adapter may be a file of parameters under the model file's own names.
    """

    kind: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    patch_size: int
    image_size: int
    max_tokens: int
    background: float = 0.5
    _caption_threshold: float | None = None
    _calibration: Calibration | None = None
    backgrounds: ClassVar[Mapping[str, float]] = {}
    averages: Literal["cosines", "maps"] = "cosines"
    looked_at: Literal["norm", "calibrated"] = "norm"
    pads: ClassVar[bool] = False
    refined_inside: tuple[str, ...] = ()
    default_refinement: str = "none"
    usual_templates: str = "openai80"
    vocabulary: frozenset[str] | None = None
    domain: Domain | None = None
    backbone: nn.Module
    text_tower: str = "text_model."
    takes_method: ClassVar[bool] = False
    method: Method | None = None
    single_file_adapters: ClassVar[bool] = False

    @classmethod
    def from_source(cls, source: Source, **options: Any) -> Encoder:
        """Build the encoder of a recognised model, on the CPU.

        Args:
            source: one of the family's formats, see `register_encoder`.
            options: `method`, where the family takes one and one was asked for.

        Raises:
            ModelError: the files do not fit together.
        """
        raise ModelError(f"{cls.__name__} does not say how it is built from files: its class must define from_source")

    def configured(
        self: Self,
        image_size: int | None = None,
        background: float | None = None,
        vocabulary: frozenset[str] | None = None,
        caption_threshold: float | None = None,
        calibration: Calibration | None = None,
        domain: Domain | None = None,
    ) -> Self:
        """Take over what the card `ttd.json` of a model says, once, after building; None leaves what is there."""
        self.image_size = image_size or self.image_size
        self.background = self.background if background is None else background
        self.vocabulary = self.vocabulary if vocabulary is None else vocabulary
        self._caption_threshold = self._caption_threshold if caption_threshold is None else caption_threshold
        self._calibration = self._calibration if calibration is None else calibration
        self.domain = self.domain if domain is None else domain
        return self

    @property
    def default_calibration(self) -> Calibration:
        """What stands for `calibration` where nobody fitted one: by default what suits OpenAI's CLIPs."""
        return OPENAI_LIKE

    @property
    def calibration(self) -> Calibration:
        """How cosines become maps in 0..1; may be set."""
        return self.default_calibration if self._calibration is None else self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = calibration

    @property
    def caption_threshold(self) -> float:
        """The threshold of a caption's mask where nobody says one: `background` unless the card says another."""
        return self.background if self._caption_threshold is None else self._caption_threshold

    def save(self, folder: Path) -> None:
        """Write the whole model, an adapter merged into it, as files that `from_source` reads: into an empty folder."""
        raise ModelError(f"a {self.kind} model cannot be saved merged: its class must define save")

    def with_method(self, name: str) -> Encoder:
        """Another encoder on the same towers whose features become maps by another method; this one stays."""
        raise ModelError(f"a {self.kind} model has one way from features to maps: leave the method out")

    @property
    def default_protocol(self) -> str:
        """Name of the protocol that `ttd eval` follows where none is named."""
        return "paper" if self.method is None else self.method.protocol

    @property
    def pruning_size(self) -> int:
        """The side in pixels at which pairs are scored for pruning."""
        return self.image_size

    @property
    def method_name(self) -> str | None:
        """The name of `method` ("maskclip", ...), None where there is none."""
        return None if self.method is None else self.method.name

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """The multiplier of cosines before a softmax or sigmoid: 1 / temperature."""

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """C, the length of an embedding."""

    @property
    def default_templates(self) -> str:
        """The templates of classes and captions where nobody says which: bare for a closed vocabulary."""
        return self.usual_templates if self.vocabulary is None else "none"

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode normalised pixels `[B,3,H,W]` of any size that fits `patch_size`; gradients flow."""

    @property
    def together(self) -> bool:
        """Whether all windows of an image are encoded in one call, as features of the whole image."""
        return False

    def encode_windows(
        self, pixels: Tensor, places: Tensor, image: Tensor | None = None, original: Tensor | None = None
    ) -> ImageFeatures:
        """`encode_image` of windows of larger images, for an encoder to which it matters where they lie.

        Args:
            pixels: `[B,3,H,W]`, normalised.
            places: int64 `[B,5]`: top, left, height and width of the whole image in its pixels, and 1 where the window
                is mirrored.
            image: `[1,3,H',W']`, normalised: the image whose windows these all are, for an encoder with `together`;
                it gives the features of that image.
            original: uint8 `[H",W",3]`, RGB: that image before it was resized, mirrored as it is; None: not known.
        """
        return self.encode_image(pixels)

    def encode_for_similarity(self, pixels: Tensor) -> ImageFeatures:
        """What `similarity` looks at and no more, for training: `pooled` may be empty, `[B,0]`.

        Args:
            pixels: `[B,3,H,W]`, normalised, with sides that are multiples of `patch_size`.
        """
        dense = self.encode_pixels(pixels).float()
        size = (pixels.shape[-2], pixels.shape[-1])
        return ImageFeatures(dense, dense.new_zeros(len(dense), 0), size, (0, 0), size)

    @abstractmethod
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """The dense features alone, `[B,C,h,w]`, L2-normalised: less work than `encode_image(pixels)`."""

    def encode_pooled(self, pixels: Tensor) -> Tensor:
        """The pooled embedding alone, `[B,C]`, L2-normalised: for pruning and retrieval.

        The same numbers as `encode_image(pixels).pooled`; an encoder that can leave the dense features out does.
        """
        return self.encode_image(pixels).pooled

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Token ids `[N,L]` and whether each text was cut at `max_tokens` (the end token is kept)."""

    @abstractmethod
    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Text embeddings `[N,C]` of token ids `[N,L]`, float32 and NOT normalised."""

    @abstractmethod
    def lora_targets(self) -> list[str]:
        """Full names, inside `backbone`, of the layers that an adapter changes by default."""

    def encode_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        """Encode texts, each put into every template in place of `{}`, and average by the encoder's own rule.

        Each distinct text is encoded once; memory beyond the answer does not grow with their number. Where it takes
        more than a second and stderr is a terminal, there is a progress bar.

        Returns:
            `[N,C]`, float32, L2-normalised.

        Raises:
            InputError: no template, or one without `{}`.
        """
        if isinstance(texts, str) or isinstance(templates, str):
            raise InputError("encode_text takes lists of texts and templates: put a single one in a list")
        if not templates or any("{}" not in template for template in templates):
            raise InputError("templates: give at least one, each with {} where the text goes")
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return torch.zeros(0, self.embedding_size, device=self.device)
        row = {text: i for i, text in enumerate(distinct)}
        at_once = max(1, PROMPTS_AT_ONCE // len(templates))
        parts = []
        with _prompts_bar(len(distinct), len(templates)) as bar:
            for start in range(0, len(distinct), at_once):
                prompts = self._embed_prompts(distinct[start : start + at_once], templates, bar.update)
                parts.append(self._average_templates(prompts))
        return torch.cat(parts)[torch.tensor([row[text] for text in texts], device=self.device)]

    def truncated_texts(self, texts: Sequence[str]) -> list[bool]:
        """Of which texts, as they are, the text tower takes only the beginning; asks the tokenizer about long ones."""
        # A token is at least one byte, start and end come on top: most texts need not be asked about.
        long = [i for i, text in enumerate(texts) if len(text.encode("utf-8", "replace")) + 2 > self.max_tokens]
        cut = [False] * len(texts)
        if long:
            _, flags = self.tokenize([texts[i] for i in long])
            for i, was_cut in zip(long, flags, strict=True):
                cut[i] = was_cut
        return cut

    def similarity(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Raw cosines of every cell and text: the paper's `sim` (Eq. 3).

        Args:
            features: B images.
            text: `[N,C]` for all images, or `[B,N,C]` with texts of its own for each; normalised here.

        Returns:
            `[B,N,h,w]` in -1..1, float32, over the padded grid.
        """
        return cosine_maps(features.dense, text)

    def logits(self, features: ImageFeatures, text: Tensor, classes: Tensor | None = None) -> Tensor | Raised:
        """What `similarity` gives, in less memory where the encoder knows how.

        Args:
            features: B images.
            text: `[N,C]`.
            classes: int64 `[N]`, to which class each text belongs, for a method that asks; None: each is one by itself.
        """
        return self.similarity(features, text)

    def maps(self, features: ImageFeatures, text: Tensor, question: MapQuestion = PLAIN_MAPS) -> Tensor:
        """Maps in 0..1 by the encoder's own rule, `[B,N,h,w]` over the padded grid; here calibrated cosines."""
        return self.calibration(self.similarity(features, text))

    def identity(self) -> dict[str, Any]:
        """What the model is besides its parameters, as JSON values: image statistics, and the tokenizer if it has one.

        A family whose computation depends on more than its parameters show (activation, heads) adds that.
        """
        return {
            **statistics_identity(self.mean, self.std),
            "tokenizer": tokenizer_identity(getattr(self, "tokenizer", None)),
        }

    def fingerprint(self) -> str:
        """What the model is, in one word, attached adapters left out; see `ttd.encoders.identity`."""
        return fingerprint(self)

    def settings(self) -> dict[str, Any]:
        """What decides results besides what the model is, as JSON values; recorded with them."""
        vocabulary = None if self.vocabulary is None else "\n".join(sorted(self.vocabulary))
        return {
            "method": self.method_name,
            "image_size": self.image_size,
            "background": self.background,
            "backgrounds": dict(self.backgrounds),
            "caption_threshold": self.caption_threshold,
            "calibration": self.calibration.to_dict(),
            "refine": self.default_refinement,
            "templates": self.default_templates,
            "vocabulary": None if vocabulary is None else hashlib.sha256(vocabulary.encode()).hexdigest(),
        }

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type; features and embeddings come out as float32 whatever it is."""
        return next(self.parameters()).dtype

    def _embed_prompts(
        self, texts: Sequence[str], templates: Sequence[str], done: Callable[[int], object] = lambda prompts: None
    ) -> Tensor:
        """Embeddings `[N,T,C]`, not normalised, of N distinct texts in T templates; `done` takes numbers of prompts.

        Chunk by chunk; similar lengths share a chunk so that little is padding.
        """
        strings = [template.replace("{}", text) for text in texts for template in templates]
        order = sorted(range(len(strings)), key=lambda i: len(strings[i]))
        chunks = []
        for start in range(0, len(order), TEXTS_PER_CHUNK):
            token_ids, _ = self.tokenize([strings[i] for i in order[start : start + TEXTS_PER_CHUNK]])
            chunks.append(self.embed_tokens(token_ids.to(self.device)))
            done(len(token_ids))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(chunks)[back.to(self.device)].view(len(texts), len(templates), -1)

    def _average_templates(self, embeddings: Tensor) -> Tensor:
        """`[N,T,C]` -> `[N,C]`: normalise each template's embedding, average, normalise (CLIP's rule)."""
        return normalize(normalize(embeddings, dim=-1).mean(1), dim=-1)

    def _check_pixels(self, pixels: Tensor, multiple: int) -> None:
        """Refuse what is not `[B,3,H,W]` with sides that the patches fill."""
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(f"pixels must have shape [B,3,H,W], not {list(pixels.shape)}")
        height, width = pixels.shape[-2:]
        if min(height, width) < 1 or height % multiple or width % multiple:
            raise InputError(
                f"the sides of the pixels ({height} x {width}) must be multiples of the patch size "
                f"{multiple}: resize or pad them first"
            )


def _prompts_bar(texts: int, templates: int) -> tqdm[Any]:
    """Progress over prompts, from the first second on; none where one chunk holds them all, and in training."""
    prompts = texts * templates
    hidden = True if prompts <= TEXTS_PER_CHUNK or torch.is_grad_enabled() else None
    title = f"{texts:,} texts x {templates} templates"
    return tqdm(total=prompts, desc=title, unit="prompt", delay=1, leave=False, disable=hidden, file=sys.stderr)
