"""What a visitor asks about an image, and what the model answers; arrays in and out, no gradio."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ttd.app.models import NO_ADAPTER, Asked, ModelPool, Seen
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.protocols import options as find_options
from ttd.results import Segmentation, Tagging
from ttd.scoring import SCORES
from ttd.text.words import distinct
from ttd.viz.figures import MOST_PANELS

AS_PROTOCOL = "as the protocol"
LONGEST_CAPTION = 2000
MOST_TAGS = 150


@dataclass(frozen=True)
class Question:
    """What the page's fields say.

    Attributes:
        path: of the sent image, None where there is none yet.
        caption: any text.
        tags: names to segment by, apart by commas; empty: the caption's chosen words.
        model, adapter: labels of `Choices`.
        protocol, refine: names; `AS_PROTOCOL` leaves the refinement to the protocol.
        threshold: 0..1, cuts the caption's map and decides what is background.
        score: one of `ttd.scoring.SCORES`.
        stop_words: score stop words too.
        background: whether a segmentation has one.
    """

    path: str | None
    caption: str = ""
    tags: str = ""
    model: str = "mini"
    adapter: str = NO_ADAPTER
    protocol: str = "default"
    refine: str = AS_PROTOCOL
    threshold: float = 0.5
    score: str = "s_pixel"
    stop_words: bool = False
    background: bool = True

    def options(self, sam_model: str | None) -> Options:
        """How the model looks and is asked."""
        chosen: dict[str, Any] = {"background": float(self.threshold), "sam_model": sam_model}
        if self.refine != AS_PROTOCOL:
            chosen["refine"] = self.refine
        return find_options(self.protocol, "masks", **chosen, stop_words=not self.stop_words)

    def check(self) -> str:
        """The path of the image, where all can be answered.

        Raises:
            InputError: nothing was sent, or a text is missing or too long.
        """
        if not self.path:
            raise InputError("There is no image yet: drop one into the field on the left, or take an example.")
        if not self.caption.strip():
            raise InputError("There is no caption yet: write what the image shows.")
        if len(self.caption) > LONGEST_CAPTION:
            raise InputError(f"The caption is longer than {LONGEST_CAPTION} characters: shorten it.")
        if self.score not in SCORES:
            raise InputError(f"There is no score {self.score!r}: choose from {', '.join(SCORES)}.")
        return self.path

    def names(self) -> list[str]:
        """The distinct tags, as written."""
        written = [part.strip() for part in self.tags.replace("\n", ",").split(",") if part.strip()]
        texts, places = distinct(written)
        if len(texts) > MOST_TAGS:
            raise InputError(f"{len(texts)} tags are too many for the page: give at most {MOST_TAGS}.")
        return [written[places.index(number)] for number in range(len(texts))]


@dataclass(frozen=True)
class CaptionView:
    """The caption's map under a title: `heat` float32 [h,w] in 0..1, and the `mask` bool [h,w] it is cut to."""

    title: str
    heat: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Words:
    """The part of an answer that no threshold changes.

    Attributes:
        tagging: the caption's words.
        maps: of the chosen words, highest score first, at most `MOST_PANELS`: float32 [h,w] in 0..1.
        best: every cell's most similar word, [h',w'], an index into `texts`.
        texts: the distinct words.
    """

    tagging: Tagging
    maps: dict[str, npt.NDArray[np.float32]]
    best: npt.NDArray[np.integer]
    texts: list[str]


@dataclass(frozen=True)
class Answer:
    """All that the page shows.

    Attributes:
        image: bounded to the shown size.
        words: None where only the threshold was changed.
        captions: the caption's map; with an adapter before and after.
        segmentation: at the shown size.
        seconds: what it took.
        fresh: whether an image had to be encoded for it.
        closed: the number of words that the model knows, None where it knows any.
    """

    image: Image.Image
    words: Words | None
    captions: list[CaptionView]
    segmentation: Segmentation | None
    seconds: float
    fresh: bool
    closed: int | None


def answer(pool: ModelPool, question: Question, *, only_cut: bool = False) -> Answer:
    """Ask the models.

    Args:
        pool: holds models and encoded images.
        question: from the page.
        only_cut: leave out what the threshold does not change.

    Raises:
        TTDError: something in the question, the image or the model cannot be used.
    """
    path = question.check()
    options = question.options(pool.choices.sam_model)
    names = question.names()
    start = time.perf_counter()
    adapted = question.adapter != NO_ADAPTER
    with pool.ask(question.model, question.adapter) as asked:
        seen = asked.see(path, options)
        tagging = _tag(asked, seen, question)
        words = None if only_cut else _words(asked, seen, tagging)
        title = f"after TTD: {question.adapter}" if adapted else question.model
        captions = [_caption(asked, seen, question, title)]
        segmentation = _segment(asked, seen, names or tagging.selected, question.background)
        vocabulary = asked.model.encoder.vocabulary
    fresh = seen.fresh
    if adapted:
        with pool.ask(question.model, NO_ADAPTER) as asked:
            base = asked.see(path, options)
            captions.insert(0, _caption(asked, base, question, f"before TTD: {question.model}"))
            fresh = fresh or base.fresh
    seconds = time.perf_counter() - start
    closed = None if vocabulary is None else len(vocabulary)
    return Answer(seen.shown.image, words, captions, segmentation, seconds, fresh, closed)


@dataclass(frozen=True)
class Download:
    """What a visitor takes away: the label map at the image's own size, and the numbers."""

    image: Image.Image
    tagging: Tagging
    segmentation: Segmentation | None
    record: dict[str, Any]


def download(pool: ModelPool, question: Question) -> Download:
    """Segment at the image's own size; as `answer` in all else."""
    path = question.check()
    names = question.names()
    with pool.ask(question.model, question.adapter) as asked:
        seen = asked.see(path, question.options(pool.choices.sam_model))
        tagging = _tag(asked, seen, question)
        full = Seen(seen.full, seen.full, seen.fresh)
        segmentation = _segment(asked, full, names or tagging.selected, question.background)
    settings = {name: value for name, value in asdict(question).items() if name != "path"}
    record = {
        "settings": settings,
        "tagging": tagging.to_dict(),
        "segmentation": segmentation.to_dict() if segmentation else None,
    }
    return Download(seen.full.image, tagging, segmentation, record)


def threshold_of(pool: ModelPool, model: str, adapter: str, protocol: str) -> float:
    """The threshold that a model has by itself, or its protocol gives it."""
    with pool.ask(model, adapter) as asked:
        encoder = asked.model.encoder
        own = find_options(protocol, "masks").threshold(encoder)
        return encoder.background if own is None else own


def _tag(asked: Asked, seen: Seen, question: Question) -> Tagging:
    return asked.model.tag(seen.shown, question.caption, selection=question.score)


def _words(asked: Asked, seen: Seen, tagging: Tagging) -> Words:
    model = asked.model
    picked = [word.text for word in tagging.ranked() if word.selected][:MOST_PANELS]
    maps = dict(zip(picked, model.heatmaps(seen.shown, picked), strict=True)) if picked else {}
    texts = [word.text for word in tagging.distinct()]
    best = model.similarity(seen.shown, texts).argmax(dim=0).cpu().numpy()
    return Words(tagging, maps, best, texts)


def _caption(asked: Asked, seen: Seen, question: Question, title: str) -> CaptionView:
    heat = asked.model.caption_map(seen.shown, question.caption)
    return CaptionView(title, heat, heat >= question.threshold)


def _segment(asked: Asked, seen: Seen, names: Sequence[str], background: bool) -> Segmentation | None:
    """None where there is nothing to segment by: no word was chosen."""
    if not names:
        return None
    options = seen.shown.options if background else replace(seen.shown.options, background=False)
    return asked.model.segment(seen.shown, names, options)
