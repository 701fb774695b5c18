"""`TTD`: a loaded model that tags and segments images from their captions.

Plain methods take an image and strings and return NumPy arrays and records; `encode_text`, `similarity` and
`score_words` under them work on tensors. An image is encoded once for many questions with `encode`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.encoders.loading.downloads import cache_folder
from ttd.errors import InputError, TTDError
from ttd.images import ImageLike, read_image
from ttd.inference.dense import DenseMaps, Scale
from ttd.inference.device import inference
from ttd.inference.feature_cache import FeatureCache
from ttd.inference.options import Options
from ttd.inference.pipeline import ImageBatch, Pipeline
from ttd.inference.protocols import Task
from ttd.inference.stitching import Stitched
from ttd.inference.views import EncodedImage, View, average
from ttd.negatives import NegativeWords, listed_words
from ttd.results import Segmentation, Tagging
from ttd.selection import Selection, find_selection
from ttd.tagger import candidates, compare, score_words, tag_batch
from ttd.text.embeddings import RepeatableTexts, TextCache, Texts
from ttd.text.words import templates

_log = logging.getLogger(__name__)

_MOST_NAMES = 65_534
T = TypeVar("T")


def load(
    name: str | Path | Encoder = "mini",
    *,
    adapter: str | Path | None = None,
    adapter_scale: float = 1.0,
    method: str | None = None,
    proxy_model: str | Path | None = None,
    calibration: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    text_cache: bool = False,
) -> TTD:
    """Load a model by short name, folder, file or hub id; see `ttd.encoders.registry.load_encoder`.

    With `text_cache` embeddings of texts are kept on disk as the command line does, see `TTD.keep_texts`.

    An encoder in place of the name is taken as it is, on its device and in its precision; the other arguments are about
    names and are refused beside it.

    Raises:
        ModelError: unknown, missing, damaged, or an adapter that does not fit.
        InputError: an encoder with an adapter, a method, a device or a dtype.
    """
    from ttd.encoders.registry import load_encoder

    if isinstance(name, Encoder):
        others = (adapter, method, proxy_model, calibration, device, dtype)
        if adapter_scale != 1 or any(given is not None for given in others):
            raise InputError(
                "an encoder is taken as it is: leave out adapter and scale, method, calibration, device and dtype"
            )
        encoder = name
    else:
        encoder = load_encoder(
            name,
            adapter=adapter,
            adapter_scale=adapter_scale,
            method=method,
            proxy_model=proxy_model,
            calibration=calibration,
            device=device,
            dtype=dtype,
        )
    model = TTD(encoder)
    if text_cache:
        model.keep_texts()
    return model


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
        self._dense = DenseMaps(self.encoder)
        self._negatives: tuple[Sequence[str] | None, NegativeWords] | None = None  # the last one asked for

    def repeatable(self) -> TTD:
        """A model that shares all with this one but its memory of texts (`ttd.text.embeddings.RepeatableTexts`).

        What it answers does not depend, not even in the last digit, on which questions came before; this one may
        differ by 1e-7 there.
        """
        twin = copy(self)
        twin._texts = RepeatableTexts(self.encoder, self._texts.cache)
        return twin

    def forget_texts(self) -> None:
        """Encode every text again, so that answers depend, to the last digit, on no earlier question."""
        self._texts.forget()

    def keep_texts(self, path: str | Path | None = None) -> None:
        """Read embeddings of texts in several templates from a file, and keep there what is encoded.

        Args:
            path: SQLite, for any models and processes, at most 200 MB; None: `texts-1.sqlite3` in $TTD_CACHE.
        """
        self._texts.cache = TextCache(cache_folder() / "texts-1.sqlite3" if path is None else Path(path), self.encoder)

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

    def tag_many(
        self,
        images: Iterable[ImageLike | EncodedImage],
        captions: Iterable[str],
        *,
        selection: Selection | str | None = None,
        options: Options | str | None = None,
        batch_size: int = 4,
    ) -> Iterator[Tagging | TTDError]:
        """`tag` for many images, one caption each.

        This and the other `..._many` read their images a bounded number ahead, ask about images of the same prepared
        shape together, and give one answer per image, in order. An image or caption that cannot be used gives its
        error in its place, and nothing else is lost.

        To compare with the words of the captions themselves:
        `Selection(rule="negatives", negatives=ttd.negatives.caption_words(captions))`.

        Args:
            images: see the class.
            captions: as many as images.
            selection: as for `tag`.
            options: see the class.
            batch_size: images that are encoded together.

        Raises:
            InputError: wrong options at once; more images than captions, or more captions, when that is found out.
        """
        rule = find_selection(selection)
        null = self._null(rule)
        texts: dict[int, str] = {}

        @inference
        def answer(batch: ImageBatch) -> list[Tagging]:
            own = [texts[number] for number in batch.numbers]
            words = [candidates(caption, None, batch.options.stop_words) for caption in own]
            taggings = self._tag_batch(batch.views, own, words, rule, batch.options, null)
            for number in batch.numbers:
                del texts[number]
            return taggings

        return self._pipeline.answers(_paired(images, captions, texts), options, "tags", batch_size, answer)

    @inference
    def heatmaps(
        self,
        image: ImageLike | EncodedImage,
        texts: Sequence[str],
        options: Options | str | None = None,
        *,
        scale: Scale | None = None,
    ) -> NDArray[np.float32]:
        """Where each text is: float32 `[N,H,W]` in 0..1 at the image's size.

        Args:
            image: see the class.
            texts: any strings.
            options: see the class.
            scale: "norm" scales each map from its lowest to its highest cell, so that something is seen also of a text
                that is nowhere; "calibrated" gives the values that masks and backgrounds are cut from. None: the way
                in which the model's maps are looked at, "calibrated" for TCL and "norm" elsewhere.
        """
        seen = self._pipeline.open(image, options, "masks")
        self._texts.check(texts, seen.options.text_templates(self.encoder))
        return self._heat(_alone(seen), texts, scale)[0]

    def heatmaps_many(
        self,
        images: Iterable[ImageLike | EncodedImage],
        texts: Sequence[str],
        options: Options | str | None = None,
        *,
        scale: Scale | None = None,
        batch_size: int = 4,
    ) -> Iterator[NDArray[np.float32] | TTDError]:
        """`heatmaps` of the same texts for many images; see `tag_many`."""
        self._texts.check(texts, self._pipeline.options(options, "masks").text_templates(self.encoder))

        @inference
        def answer(batch: ImageBatch) -> list[NDArray[np.float32]]:
            return self._heat(batch, texts, scale)

        return self._pipeline.answers(images, options, "masks", batch_size, answer)

    @inference
    def caption_map(
        self,
        image: ImageLike | EncodedImage,
        caption: str,
        options: Options | str | None = None,
        *,
        scale: Scale | None = None,
    ) -> NDArray[np.float32]:
        """Where the whole caption is: float32 `[H,W]` in 0..1; see `heatmaps`."""
        seen = self._pipeline.open(image, options, "masks")
        self._texts.check([caption], seen.options.text_templates(self.encoder))
        heat: NDArray[np.float32] = self._heat(_alone(seen), [caption], scale)[0][0]
        return heat

    @inference
    def caption_mask(
        self,
        image: ImageLike | EncodedImage,
        caption: str,
        threshold: float | None = None,
        options: Options | str | None = None,
    ) -> NDArray[np.bool_]:
        """What the caption describes: bool `[H,W]`, where its calibrated map reaches the threshold; possibly nowhere.

        Args:
            image: see the class.
            caption: any text.
            threshold: in 0..1; None: `background` of the options where that is a number, else the encoder's own for
                captions.
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
        return self._masks(_alone(seen), [captions])[0]

    def caption_masks_many(
        self,
        images: Iterable[ImageLike | EncodedImage],
        captions: Iterable[Sequence[str]],
        threshold: float | None = None,
        options: Options | str | None = None,
        *,
        batch_size: int = 4,
    ) -> Iterator[NDArray[np.bool_] | TTDError]:
        """`caption_masks` for many images, each with one or several captions of its own; see `tag_many`."""
        texts: dict[int, Sequence[str]] = {}
        changes = {} if threshold is None else {"background": threshold}
        settings = (
            None if options is None and threshold is None else self._pipeline.options(options, "masks", **changes)
        )

        @inference
        def answer(batch: ImageBatch) -> list[NDArray[np.bool_]]:
            own = [texts[number] for number in batch.numbers]
            for captions_of_one in own:
                self._texts.check(captions_of_one, batch.options.text_templates(self.encoder))
            masks = self._masks(batch, own)
            for number in batch.numbers:
                del texts[number]
            return masks

        return self._pipeline.answers(_paired(images, captions, texts), settings, "masks", batch_size, answer)

    @inference
    def segment(
        self,
        image: ImageLike | EncodedImage,
        names: Sequence[str | Sequence[str]],
        options: Options | str | None = None,
    ) -> Segmentation:
        """Give every pixel one of the names, or background.

        The highest map wins. Background is where the winner's calibrated map stays below `background`, so that without
        refinement one name more takes only those pixels where its own map wins; or by other rules of `ttd.Options`.

        Args:
            image: see the class.
            names: classes, each a text, or several texts for it of which the best counts; the first is its name.
            options: see the class: `Options(background=0.4, refine="pamr")`; background None or False: none.
        """
        seen = self._pipeline.open(image, options, "masks")
        truncated = self._check_names(names, seen.options)
        return self._labels(_alone(seen), names, truncated)[0]

    def segment_many(
        self,
        images: Iterable[ImageLike | EncodedImage],
        names: Sequence[str | Sequence[str]],
        options: Options | str | None = None,
        *,
        batch_size: int = 4,
    ) -> Iterator[Segmentation | TTDError]:
        """`segment` by the same names for many images; see `tag_many`."""
        truncated = self._check_names(names, self._pipeline.options(options, "masks"))

        @inference
        def answer(batch: ImageBatch) -> list[Segmentation]:
            return self._labels(batch, names, truncated)

        return self._pipeline.answers(images, options, "masks", batch_size, answer)

    @inference
    def encode_text(self, texts: Sequence[str], which: str | Sequence[str] = "none") -> Tensor:
        """Text embeddings `[N,C]`, L2-normalised, averaged over templates; remembered for the next question.

        Args:
            texts: any strings.
            which: templates by name, or the caller's own; see `ttd.text.words`.
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
        if rule.found.negatives:
            if negatives is None:
                raise InputError(f'the rule "{rule.rule}" needs the embeddings of negative words')
            scores, compared = compare(self.encoder, views, text, negatives, rule, valid)
            return scores, rule.select(compared.percentile, valid)
        if rule.needs_caption and caption is None:
            raise InputError(f"the score {rule.score} needs the caption's embedding")
        scores = score_words(self.encoder, views, text, rule, caption=caption, valid=valid)
        return scores, rule.select(scores, valid)

    def notice(self, image: ImageLike | EncodedImage) -> str | None:
        """A sentence where an image does not look like those that a small model learned from; None elsewhere.

        Args:
            image: see the class.
        """
        domain = self.encoder.domain
        if domain is None:
            return None
        return domain.notice(image.image if isinstance(image, EncodedImage) else read_image(image))

    def check_refinement(self, options: Options) -> None:
        """Raises `MissingExtra` where a package for the options' refinement is not installed."""
        self._dense.check(options)

    def unknown_words(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Distinct words (lower case) that a model with a closed vocabulary does not know; else none."""
        return self._texts.unknown(texts)

    def truncated_texts(self, texts: Sequence[str], which: str | Sequence[str] = "none") -> tuple[str, ...]:
        """Those texts of which, with their longest template, only the beginning fits into the text tower."""
        return self._texts.truncated(texts, templates(which))

    def _null(self, selection: Selection) -> NegativeWords | None:
        """The words that a selection compares with, prepared once for all calls with the same ones."""
        if not selection.found.negatives:
            return None
        asked = selection.negatives
        if self._negatives is None or self._negatives[0] != asked:
            vocabulary = self.encoder.vocabulary
            null = NegativeWords(listed_words(vocabulary) if asked is None else asked)
            unknown = self.unknown_words(null.texts)
            if unknown:
                _log.warning(
                    "%d of the %d negative words are outside this model's vocabulary, such as %s",
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
            truncated = self.truncated_texts([*texts, *whole], options.tag_templates)
            notes.append(replace(tagging, truncated=truncated, unknown=self.unknown_words(texts)))
        return notes

    def _asked(
        self, batch: ImageBatch, texts: Sequence[str], threshold: float | None, classes: Sequence[int] | None = None
    ) -> Stitched:
        """Maps of texts, see `DenseMaps.ask`."""
        self._dense.check(batch.options)
        text = self.encode_text(texts, batch.options.text_templates(self.encoder))
        return self._dense.ask(batch.views, text, batch.options, threshold=threshold, classes=classes)

    def _heat(self, batch: ImageBatch, texts: Sequence[str], scale: Scale | None) -> list[NDArray[np.float32]]:
        """`heatmaps` of texts that were checked; each map is refined by itself."""
        scale, asked = scale or self.encoder.looked_at, self._asked(batch, texts, None)
        return [self._dense.values(asked, n, image, batch.options, scale) for n, image in enumerate(batch.images)]

    def _masks(self, batch: ImageBatch, captions: Sequence[Sequence[str]]) -> list[NDArray[np.bool_]]:
        """`caption_masks` of captions that were checked, some for each image; each distinct one is asked once."""
        every = list(dict.fromkeys(text for own in captions for text in own))
        asked = self._asked(batch, every, batch.options.caption_threshold(self.encoder))
        found = []
        for number, (image, own) in enumerate(zip(batch.images, captions, strict=True)):
            of_image = asked.only(number, [every.index(text) for text in own])
            found.append(self._dense.masks(of_image, 0, image, batch.options))
        return found

    def _check_names(self, names: Sequence[str | Sequence[str]], options: Options) -> tuple[str, ...]:
        """Refuses names that cannot be classes; gives those that the text tower truncates."""
        if isinstance(names, str):
            raise InputError("names must be a list of classes: put a single one in a list")
        texts = [text for one in names for text in ([one] if isinstance(one, str) else one)]
        if any(not isinstance(one, str) and not one for one in names):
            raise InputError("a class has no name: give each at least one")
        truncated = self._texts.check([*texts, *options.background_words], options.text_templates(self.encoder))
        if len(names) > _MOST_NAMES:
            raise InputError(f"{len(names)} names are too many: a label map holds {_MOST_NAMES}")
        return truncated

    def _labels(
        self, batch: ImageBatch, names: Sequence[str | Sequence[str]], truncated: tuple[str, ...]
    ) -> list[Segmentation]:
        """`segment` by names that were checked."""
        options = batch.options
        words, threshold = options.background_words, options.threshold(self.encoder)
        groups = [words, *names] if words else list(names)
        prompts = [(text, n) for n, one in enumerate(groups) for text in ([one] if isinstance(one, str) else one)]
        texts, classes = [text for text, _ in prompts], [n for _, n in prompts]
        titles = tuple(one if isinstance(one, str) else one[0] for one in names)
        behind = bool(words) or threshold is not None or options.prob_threshold is not None
        cut = threshold if options.prob_threshold is None else options.prob_threshold
        asked = self._asked(batch, texts, threshold, classes)
        found = []
        for number, image in enumerate(batch.images):
            labels = self._dense.labels(asked, number, image, options, classes, 0 if words else None)
            if words:
                labels = np.maximum(labels, 0)
            elif behind:
                labels = labels + 1
            all_names = ("background", *titles) if behind else titles
            shown = (0.0 if cut is None else cut) if behind else None
            unknown = self.unknown_words(texts)
            found.append(Segmentation(labels.astype(np.uint16), all_names, shown, truncated, unknown))
        return found


def _alone(seen: EncodedImage) -> ImageBatch:
    return ImageBatch([0], [seen.image], seen.views, seen.options)


def _paired(images: Iterable[Any], texts: Iterable[T], kept: dict[int, T]) -> Iterator[Any]:
    """The images, while their texts are put into `kept` by number.

    Raises:
        InputError: there are more of one than of the other.
    """
    missing: Any = object()
    for number, (image, text) in enumerate(zip_longest(images, texts, fillvalue=missing)):
        if image is missing or text is missing:
            more = "images than texts" if text is missing else "texts than images"
            raise InputError(f"there are more {more} (of the first there are {number}): give one for each")
        kept[number] = text
        yield image
