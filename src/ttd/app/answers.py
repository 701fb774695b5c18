"""A question about an image, and its answer as arrays; independent of gradio."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ttd.app.models import NO_ADAPTER, OWN_METHOD, ModelInUse, ModelPool, PageImage
from ttd.encoders.loading.catalogue import IN_PACKAGE, find_entry
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.protocols import options as find_options
from ttd.results import Segmentation, Tagging
from ttd.scoring import SCORES
from ttd.text.words import distinct
from ttd.viz.figures import MOST_PANELS

AS_PROTOCOL = "as the protocol"
MAX_CAPTION = 2000
MAX_TAGS = 150


@dataclass(frozen=True)
class Question:
    """The values of the page's fields.

    Attributes:
        path: of the uploaded image, None where there is none yet.
        caption: any text.
        tags: names to segment by, separated by commas; empty: the caption's selected words.
        model, adapter: labels of `PageChoices`.
        method: one of `PageChoices.methods`.
        protocol, refine: names; `AS_PROTOCOL` leaves the refinement to the protocol.
        threshold: 0..1, of the caption's map and of the background.
        score: one of `ttd.scoring.SCORES`.
        stop_words: score stop words too.
        background: whether a segmentation has one.
    """

    path: str | None
    caption: str = ""
    tags: str = ""
    model: str = "mini"
    adapter: str = NO_ADAPTER
    method: str = OWN_METHOD
    protocol: str = "default"
    refine: str = AS_PROTOCOL
    threshold: float = 0.5
    score: str = "s_pixel"
    stop_words: bool = False
    background: bool = True

    def options(self, sam_model: str | None) -> Options:
        """The options of the model's maps."""
        chosen: dict[str, Any] = {"background": float(self.threshold), "sam_model": sam_model}
        if self.refine != AS_PROTOCOL:
            chosen["refine"] = self.refine
        return find_options(self.protocol, "masks", **chosen, stop_words=not self.stop_words)

    def check(self) -> str:
        """Checks the fields and returns the path of the image.

        Raises:
            InputError: there is no image, a text is missing or too long, or the score is unknown.
        """
        if not self.path:
            raise InputError("There is no image yet: drop one into the field on the left, or choose an example.")
        if not self.caption.strip():
            raise InputError("There is no caption yet: write what the image shows.")
        if len(self.caption) > MAX_CAPTION:
            raise InputError(f"The caption is longer than {MAX_CAPTION} characters: shorten it.")
        if self.score not in SCORES:
            raise InputError(f"Unknown score {self.score!r}: choose from {', '.join(SCORES)}.")
        return self.path

    def names(self) -> list[str]:
        """The distinct tags, as written."""
        written = [part.strip() for part in self.tags.replace("\n", ",").split(",") if part.strip()]
        texts, indices = distinct(written)
        if len(texts) > MAX_TAGS:
            raise InputError(f"{len(texts)} tags are too many for the page: give at most {MAX_TAGS}.")
        return [written[indices.index(number)] for number in range(len(texts))]


@dataclass(frozen=True)
class CaptionResult:
    """The caption's map under a title: `heat` float32 [h,w] in 0..1, and its `mask` bool [h,w] at the threshold."""

    title: str
    heat: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WordsResult:
    """The part of an answer that does not depend on the threshold.

    Attributes:
        tagging: the caption's words.
        maps: of the `MOST_PANELS` words with the highest scores, highest first: float32 [h,w] in 0..1.
        sim: cosines of every patch with the distinct words, float32 [N,h',w'].
        texts: the distinct words.
    """

    tagging: Tagging
    maps: dict[str, npt.NDArray[np.float32]]
    sim: npt.NDArray[np.float32]
    texts: list[str]

    @property
    def best(self) -> npt.NDArray[np.integer]:
        """The most similar word of every patch, [h',w'], an index into `texts`."""
        best: npt.NDArray[np.integer] = self.sim.argmax(axis=0)
        return best

    @property
    def selected(self) -> list[str]:
        """The selected words that have a map."""
        return [word.text for word in self.tagging.ranked() if word.selected and word.text in self.maps]


@dataclass(frozen=True)
class PageAnswer:
    """Everything that the page shows.

    Attributes:
        image: at the maps' size; `canvas`: larger.
        words: None with `threshold_only`.
        captions: the caption's map; with an adapter two, without and with it.
        segmentation: at the shown size.
        seconds: the time to compute it.
        newly_encoded: whether the image had to be encoded for it.
        notice: where the image is not what the model learned from, see `TTD.notice`.
        vocabulary_size: the number of words of a model with a closed vocabulary, None for others.
    """

    image: Image.Image
    canvas: Image.Image
    words: WordsResult | None
    captions: list[CaptionResult]
    segmentation: Segmentation | None
    seconds: float
    newly_encoded: bool
    notice: str | None
    vocabulary_size: int | None


def answer(pool: ModelPool, question: Question, *, threshold_only: bool = False) -> PageAnswer:
    """Answers a question.

    Args:
        pool: the models and encoded images.
        question: from the page.
        threshold_only: leave out what the threshold does not change.

    Raises:
        TTDError: the question, the image or the model cannot be used.
    """
    path = question.check()
    options = question.options(pool.choices.sam_model)
    names = question.names()
    start = time.perf_counter()
    adapted = question.adapter != NO_ADAPTER
    with pool.use(question.model, question.adapter, question.method) as model:
        image = model.encode(path, options)
        tagging = _tag(model, image, question)
        words = None if threshold_only else _words(model, image, tagging)
        title = _after(question.adapter) if adapted else question.model
        captions = [_caption(model, image, question, title)]
        segmentation = _segment(model, image, names or tagging.selected, question.background)
        vocabulary = model.ttd.encoder.vocabulary
    newly_encoded = image.newly_encoded
    if adapted:
        with pool.use(question.model, NO_ADAPTER, question.method) as model:
            base = model.encode(path, options)
            captions.insert(0, _caption(model, base, question, f"before: {question.model}"))
            newly_encoded = newly_encoded or base.newly_encoded
    seconds = time.perf_counter() - start
    vocabulary_size = None if vocabulary is None else len(vocabulary)
    return PageAnswer(
        image=image.shown.image,
        canvas=image.canvas,
        words=words,
        captions=captions,
        segmentation=segmentation,
        seconds=seconds,
        newly_encoded=newly_encoded,
        notice=image.notice,
        vocabulary_size=vocabulary_size,
    )


@dataclass(frozen=True)
class PageDownload:
    """What can be downloaded: image and label map at the image's own size, and all numbers (`record`).

    `name` is that of the image's file, without folders.
    """

    name: str
    image: Image.Image
    tagging: Tagging
    segmentation: Segmentation | None
    record: dict[str, Any]


def download(pool: ModelPool, question: Question) -> PageDownload:
    """Segments at the image's own size, otherwise with the settings of `answer`."""
    path = question.check()
    names = question.names()
    with pool.use(question.model, question.adapter, question.method) as model:
        image = model.encode(path, question.options(pool.choices.sam_model))
        tagging = _tag(model, image, question)
        full = image.full(path)
        segmentation = _segment(model, full, names or tagging.selected, question.background)
    settings = {name: value for name, value in asdict(question).items() if name != "path"}
    record = {
        "settings": settings,
        "notice": full.notice,
        "tagging": tagging.to_dict(),
        "segmentation": segmentation.to_dict() if segmentation else None,
    }
    return PageDownload(Path(path).name, full.shown.image, tagging, segmentation, record)


def threshold_of(pool: ModelPool, model: str, adapter: str, protocol: str) -> float:
    """The threshold of a protocol, or the model's own for captions where the protocol has none."""
    with pool.use(model, adapter) as used:
        return find_options(protocol, "masks").caption_threshold(used.ttd.encoder)


def _tag(model: ModelInUse, image: PageImage, question: Question) -> Tagging:
    return model.ttd.tag(image.shown, question.caption, selection=question.score)


def _words(model: ModelInUse, image: PageImage, tagging: Tagging) -> WordsResult:
    highest = [word.text for word in tagging.ranked()][:MOST_PANELS]
    maps = dict(zip(highest, model.ttd.heatmaps(image.shown, highest), strict=True))
    texts = [word.text for word in tagging.distinct()]
    return WordsResult(tagging, maps, model.ttd.similarity(image.shown, texts).float().cpu().numpy(), texts)


def _after(adapter: str) -> str:
    """The title of an adapter's map; of those in the package also whose recipe it is."""
    entry = find_entry(adapter, "adapter")
    return f"after: {adapter}" + (f", {entry.notes}" if entry is not None and entry.source == IN_PACKAGE else "")


def _caption(model: ModelInUse, image: PageImage, question: Question, title: str) -> CaptionResult:
    heat = model.ttd.caption_map(image.shown, question.caption, scale="calibrated")
    return CaptionResult(title, heat, heat >= question.threshold)


def _segment(model: ModelInUse, image: PageImage, names: Sequence[str], background: bool) -> Segmentation | None:
    """The segmentation; None without names, when no word was selected."""
    if not names:
        return None
    options = image.shown.options if background else replace(image.shown.options, background=False)
    return model.ttd.segment(image.shown, names, options)
