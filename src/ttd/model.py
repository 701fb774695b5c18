"""`TTD`: a loaded model that tags and segments images from their captions.

Plain methods take an image and strings and return NumPy arrays and records; `encode_text`, `similarity` and
`score_words` under them work on tensors. An image is encoded once for many questions with `encode`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttd.device import inference
from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.images import ImageLike
from ttd.inference.feature_cache import FeatureCache
from ttd.inference.masks import pixel_labels, pixel_mask, pixel_values
from ttd.inference.options import Options
from ttd.inference.pipeline import Pipeline
from ttd.inference.protocols import Task
from ttd.inference.protocols import options as find_options
from ttd.inference.views import EncodedImage, View, average
from ttd.maps import joint_norm, norm
from ttd.negatives import NegativeWords, listed_words
from ttd.refine.base import Refiner, find_refiner
from ttd.results import Segmentation, Tagging
from ttd.tagger import Selection, candidates, compare, find_selection, score_words, tag_batch
from ttd.text.embeddings import Texts
from ttd.text.templates import templates

_log = logging.getLogger(__name__)

# `tag_many` reads this many batches of images ahead, to find some of the same shape.
_BATCHES_AHEAD = 8
_MOST_NAMES = 65_534


def load(
    name: str | Path = "mini",
    *,
    adapter: str | Path | None = None,
    adapter_scale: float = 1.0,
    method: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> TTD:
    """Load a model by short name, folder, file or hub id; see `ttd.encoders.registry.load_encoder`.

    Raises:
        ModelError: unknown, missing, damaged, or an adapter that does not fit.
    """
    from ttd.encoders.registry import load_encoder

    return TTD(
        load_encoder(name, adapter=adapter, adapter_scale=adapter_scale, method=method, device=device, dtype=dtype)
    )


class TTD:
    """Tags and segments images with any encoder.

    Every method that looks at an image takes a path, a PIL image, a uint8 array `[H,W,3]`, or what `encode`
    returned; and `options`: `ttd.Options`, a protocol's name (see `ttd.inference.protocols`), or None for what the
    image was encoded with, else "default". All may raise `InputError` (an unusable image, text or option) and
    `OutOfMemory`.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder.eval()
        self._pipeline = Pipeline(self.encoder)
        self._texts = Texts(self.encoder)
        self._refiners: dict[tuple[Any, ...], Refiner] = {}
        self._negatives: tuple[Sequence[str] | None, NegativeWords] | None = None  # the last one asked for

    def encode_texts_alone(self) -> None:
        """From now on an embedding does not depend on which texts were asked for together (`Texts.alone`)."""
        self._texts.alone = True

    def keep_features(self, folder: str | Path) -> None:
        """Read features of images from a folder, and keep there what is encoded; see `ttd.inference.feature_cache`."""
        self._pipeline.cache = FeatureCache(Path(folder), self.encoder)

    @inference
    def encode(
        self, image: ImageLike | EncodedImage, options: Options | str | None = None, *, task: Task = "masks"
    ) -> EncodedImage:
        """Encode an image for many questions, which then start from these options.

        Args:
            image: see the class.
            options: see the class.
            task: where a protocol is named: which of its options, see `ttd.inference.protocols.Protocol`.
        """
        return self._pipeline.open(image, options, task, keep=True)

    @inference
    def tag(
        self,
        image: ImageLike | EncodedImage,
        caption: str | None,
        *,
        tags: Sequence[str] | None = None,
        selection: Selection | str | None = None,
        options: Options | str | None = None,
    ) -> Tagging:
        """Score a caption's words, or the caller's `tags`, and select those that the image shows.

        Args:
            image: see the class.
            caption: may be None where `tags` are given and the score does not need it.
            tags: words or phrases to score in place of the caption's words.
            selection: score and rule: `ttd.Selection`, the name of a score or a rule, or None for the paper's.
            options: see the class; `Options(stop_words=False)` keeps stop words.
        """
        rule = find_selection(selection)
        null = self._null(rule)
        seen = self._pipeline.open(image, options, "tags")
        words = candidates(caption, tags, seen.options.stop_words)
        return self._tag_batch(seen.views, [caption], [words], rule, seen.options, null)[0]

    @inference
    def tag_many(
        self,
        images: Sequence[ImageLike | EncodedImage],
        captions: Sequence[str],
        *,
        selection: Selection | str | None = None,
        batch_size: int = 4,
        options: Options | str | None = None,
    ) -> list[Tagging]:
        """`tag` for many images, one caption each; images of the same prepared shape share a batch.

        To compare with the words of the captions themselves:
        `Selection(rule="negatives", negatives=ttd.negatives.caption_words(captions))`.
        """
        if len(images) != len(captions):
            raise InputError(f"{len(images)} images came with {len(captions)} captions: give one for each")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        rule = find_selection(selection)
        null = self._null(rule)
        settings = find_options(options, "tags")
        words = [candidates(caption, None, settings.stop_words) for caption in captions]
        found: dict[int, Tagging] = {}
        ahead = batch_size * _BATCHES_AHEAD
        for first in range(0, len(images), ahead):
            numbers = range(first, min(first + ahead, len(images)))
            for batch, views in self._pipeline.batches({i: images[i] for i in numbers}, options, batch_size):
                taggings = self._tag_batch(
                    views, [captions[i] for i in batch], [words[i] for i in batch], rule, settings, null
                )
                found.update(zip(batch, taggings, strict=True))
        return [found[i] for i in range(len(images))]

    @inference
    def heatmaps(
        self, image: ImageLike | EncodedImage, texts: Sequence[str], options: Options | str | None = None
    ) -> NDArray[np.float32]:
        """Where each text is: float32 `[N,H,W]` in 0..1 at the image's size.

        TCL's maps are calibrated; others are scaled from each map's lowest to its highest cell.
        """
        seen = self._pipeline.open(image, options, "masks")
        self._texts.check(texts, seen.options.text_templates(self.encoder))
        return self._heat(seen, texts)

    @inference
    def caption_map(
        self, image: ImageLike | EncodedImage, caption: str, options: Options | str | None = None
    ) -> NDArray[np.float32]:
        """Where the whole caption is: float32 `[H,W]` in 0..1."""
        seen = self._pipeline.open(image, options, "masks")
        self._texts.check([caption], seen.options.text_templates(self.encoder))
        heat: NDArray[np.float32] = self._heat(seen, [caption])[0]
        return heat

    @inference
    def caption_mask(
        self,
        image: ImageLike | EncodedImage,
        caption: str,
        threshold: float | None = None,
        options: Options | str | None = None,
    ) -> NDArray[np.bool_]:
        """What the caption describes: bool `[H,W]`, where its map reaches the threshold.

        Args:
            image: see the class.
            caption: any text.
            threshold: in 0..1; None: `background` of the options, or the encoder's own.
            options: see the class.
        """
        mask: NDArray[np.bool_] = self.caption_masks(image, [caption], threshold, options)[0]
        return mask

    @inference
    def caption_masks(
        self,
        image: ImageLike | EncodedImage,
        captions: Sequence[str],
        threshold: float | None = None,
        options: Options | str | None = None,
    ) -> NDArray[np.bool_]:
        """What each of several captions describes, each by itself: bool `[N,H,W]`; see `caption_mask`.

        The image is looked at once for all of them.
        """
        seen = self._pipeline.open(image, options, "masks")
        if threshold is not None:
            seen = replace(seen, options=replace(seen.options, background=threshold))
        self._texts.check(captions, seen.options.text_templates(self.encoder))
        cut = _threshold(seen.options, self.encoder)
        maps = self._refined_each(seen, self._maps(seen, captions, cut=cut), cut)
        return np.stack([pixel_mask(one, seen.size, cut) for one in maps])

    @inference
    def segment(
        self, image: ImageLike | EncodedImage, names: Sequence[str], options: Options | str | None = None
    ) -> Segmentation:
        """Give every pixel one of the names, or background.

        The highest map wins. Background is where the winner's map stays below `background`: TCL's own
        calibrated map, elsewhere cosines scaled over all names and cells of the image together.

        Args:
            image: see the class.
            names: classes, of one or several words.
            options: see the class: `Options(background=0.4, refine="pamr")`; background None or False: none.
        """
        seen = self._pipeline.open(image, options, "masks")
        cut_texts = self._texts.check(names, seen.options.text_templates(self.encoder))
        if len(names) > _MOST_NAMES:
            raise InputError(f"{len(names)} names are too many: a label map holds {_MOST_NAMES}")
        threshold = seen.options.threshold(self.encoder)
        maps = self._maps(seen, names, joint=True, cut=threshold)
        refiner = self._refiner(seen.options)
        if refiner is not None:
            maps = refiner.refine(seen.image, maps, threshold)
        labels = pixel_labels(maps, seen.size, threshold)
        all_names = tuple(names) if threshold is None else ("background", *names)
        return Segmentation(labels, all_names, threshold, cut_texts, self.unknown_words(names))

    @inference
    def encode_text(self, texts: Sequence[str], which: str | Sequence[str] = "none") -> Tensor:
        """Text embeddings `[N,C]`, L2-normalised, averaged over templates; remembered for the next question.

        Args:
            texts: any strings.
            which: templates by name, or the caller's own; see `ttd.text.templates`.
        """
        return self._texts.encode(texts, templates(which))

    @inference
    def similarity(
        self, image: ImageLike | EncodedImage, texts: Sequence[str] | Tensor, options: Options | str | None = None
    ) -> Tensor:
        """Raw cosines `[N,h,w]` on the finest view's grid, averaged over the views: the paper's `sim`.

        Args:
            image: see the class.
            texts: strings (put into `tag_templates`, by default bare), or embeddings `[N,C]`.
            options: see the class.
        """
        seen = self._pipeline.open(image, options, "masks")
        if not isinstance(texts, Tensor):
            self._texts.check(texts, templates(seen.options.tag_templates))
            texts = self.encode_text(texts, seen.options.tag_templates)
        text = texts
        return average(seen.views, lambda features: self.encoder.similarity(features, text))[0]

    @inference
    def score_words(
        self,
        views: Iterable[View],
        text: Tensor,
        *,
        caption: Tensor | None = None,
        valid: Tensor | None = None,
        selection: Selection | str | None = None,
        negatives: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores and selection of a batch, each `[B,N]`; the tensors under `tag`.

        Args:
            views: of B images: `EncodedImage.views`, or `ttd.inference.views.encode_views` of a batch.
            text: `[N,C]` for all images or `[B,N,C]`.
            caption: `[B,C]` for the scores that need it.
            valid: bool `[B,N]`, False where a caption has fewer words.
            selection: as for `tag`.
            negatives: `[K,C]`, embeddings of the words to compare with, for the rule "negatives".
        """
        rule = find_selection(selection)
        if rule.rule == "negatives":
            if negatives is None:
                raise InputError('the rule "negatives" needs the embeddings of negative words')
            scores, compared = compare(self.encoder, views, text, negatives, rule, valid)
            return scores, rule.select(compared.percentile, valid)
        if rule.needs_caption and caption is None:
            raise InputError(f"the score {rule.score} needs the caption's embedding")
        scores = score_words(self.encoder, views, text, rule, caption=caption, valid=valid)
        return scores, rule.select(scores, valid)

    def unknown_words(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Distinct words (lower case) that a model with a closed vocabulary does not know; else none."""
        return self._texts.unknown(texts)

    def cut_texts(self, texts: Sequence[str], which: str | Sequence[str] = "none") -> tuple[str, ...]:
        """Those texts of which, with their longest template, only the beginning fits into the text tower."""
        return self._texts.cut(texts, templates(which))

    def _null(self, selection: Selection) -> NegativeWords | None:
        """The words that a selection compares with, prepared once for all calls with the same ones."""
        if selection.rule != "negatives":
            return None
        asked = selection.negatives
        if self._negatives is None or self._negatives[0] != asked:
            vocabulary = self.encoder.vocabulary
            null = NegativeWords(listed_words(vocabulary) if asked is None else asked)
            unknown = self.unknown_words(null.texts)
            if unknown:
                _log.warning(
                    "%d of the %d negative words lie outside this model's world, such as %s",
                    len(unknown),
                    len(null),
                    ", ".join(unknown[:3]),
                )
            self._negatives = asked, null
        return self._negatives[1]

    def _tag_batch(
        self,
        views: Iterable[View],
        captions: Sequence[str | None],
        words: Any,
        rule: Selection,
        options: Options,
        negatives: NegativeWords | None,
    ) -> list[Tagging]:
        taggings = tag_batch(
            self.encoder,
            views,
            captions,
            words,
            rule,
            lambda texts: self.encode_text(texts, options.tag_templates),
            negatives,
        )
        notes = []
        for tagging in taggings:
            texts = [word.text for word in tagging.distinct()]
            whole = [tagging.caption] if rule.needs_caption and tagging.caption else []
            cut = self.cut_texts([*texts, *whole], options.tag_templates)
            notes.append(replace(tagging, cut=cut, unknown=self.unknown_words(texts)))
        return notes

    def _maps(
        self, seen: EncodedImage, texts: Sequence[str], *, joint: bool = False, cut: float | None = None
    ) -> Tensor:
        """Maps `[N,h,w]` in 0..1 on the canvas; `joint`: comparable with each other. TCL refines its own with PAMR.

        Below `cut`, where the caller makes no difference between values, a map may go without PAMR.
        """
        options, encoder = seen.options, self.encoder
        text = self.encode_text(texts, options.text_templates(encoder))
        if encoder.calibrated:
            with_pamr = options.refinement(encoder) == "pamr"
            own: dict[str, Any] = {"pamr": with_pamr, "clip_weight": options.clip_weight}
            if with_pamr and options.one_view:  # else averages of views are cut, not these maps
                own["threshold"] = cut
            return average(seen.views, lambda features: encoder.maps(features, text, **own))[0]
        sim = average(seen.views, lambda features: encoder.similarity(features, text))[0]
        return joint_norm(sim) if joint else norm(sim)

    def _heat(self, seen: EncodedImage, texts: Sequence[str]) -> NDArray[np.float32]:
        """`heatmaps` of texts that were checked; each map is refined by itself."""
        maps = self._maps(seen, texts)
        return pixel_values(self._refined_each(seen, maps, _threshold(seen.options, self.encoder)), seen.size)

    def _refined_each(self, seen: EncodedImage, maps: Tensor, threshold: float) -> Tensor:
        refiner = self._refiner(seen.options)
        return maps if refiner is None else refiner.refine_each(seen.image, maps, threshold)

    def _refiner(self, options: Options) -> Refiner | None:
        """What refines maps after they were put together, made once for all questions with the same options."""
        name = options.refinement(self.encoder)
        if name == "none" or (name == "pamr" and self.encoder.calibrated):
            return None
        key = (name, options.size, options.sam_model)
        if key not in self._refiners:
            self._refiners[key] = find_refiner(name).create(self.encoder, options)
        return self._refiners[key]


def _threshold(options: Options, encoder: Encoder) -> float:
    """A mask of one map needs a threshold, also where the options ask for no background."""
    threshold = options.threshold(encoder)
    return encoder.background if threshold is None else threshold
