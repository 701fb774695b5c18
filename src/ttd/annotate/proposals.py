"""What is suggested to the annotator: the words that our scores choose, and a mask for each."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttd.annotate.map_masks import Mask, mask_from_map, painted
from ttd.annotate.prompts import Box, Point, Prompts
from ttd.text.words import is_stop_word, split_words

if TYPE_CHECKING:
    from ttd.inference.options import Options
    from ttd.inference.views import EncodedImage
    from ttd.model import TTD
    from ttd.refine.sam import SAMEmbedding, SAMRefiner


def mask_from_sam(sam: SAMRefiner, embedding: SAMEmbedding, prompts: Prompts) -> NDArray[np.bool_]:
    """The mask bool [H,W] for at least one point inside or one box."""
    mask = np.zeros(embedding.size, np.bool_)
    outside = [point for point in prompts.points if not point.inside]
    for box, inside in _questions(prompts):
        points = [*inside, *outside]
        spots = [[(point.x, point.y) for point in points]] if points else None
        labels = [[int(point.inside) for point in points]] if points else None
        boxes = [(box.left, box.top, box.right, box.bottom)] if box else None
        # A lone point leaves open whether a part or the whole is meant: then SAM-HQ may draw three and take its best.
        answer = sam.predict(embedding, spots, labels, boxes, multimask=box is None and len(points) == 1)
        mask |= answer.masks[0]
    return mask


def _questions(prompts: Prompts) -> list[tuple[Box | None, Sequence[Point]]]:
    """Each box (or none) with the points inside the word that belong to it."""
    inside = [point for point in prompts.points if point.inside]
    free = [point for point in inside if not any(_holds(box, point) for box in prompts.boxes)]
    questions: list[tuple[Box | None, Sequence[Point]]] = [
        (box, [point for point in inside if _holds(box, point)]) for box in prompts.boxes
    ]
    return [*questions, (None, free)] if free else questions


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom


@dataclass(frozen=True)
class Candidate:
    """A distinct word of the caption that may be true, in lower case.

    Attributes:
        text: the word.
        score: s_pixel, a cosine.
        proposed: whether our selection (largest gap) takes it.
    """

    text: str
    score: float
    proposed: bool


@dataclass(eq=False)
class Look:
    """An image as the models see it, encoded once; made by `Proposer.look`, asked with `Proposer.mask`."""

    size: tuple[int, int]
    candidates: tuple[Candidate, ...]
    _seen: EncodedImage
    _sam_seen: SAMEmbedding | None
    _heat: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _masks: dict[tuple[str, Prompts], Mask] = field(default_factory=dict)


class Proposer:
    """A model, and SAM-HQ where there is one. Threads may share it; they wait for each other.

    Args:
        model: scores the words and maps them.
        sam: draws the masks; None: they are cut from the model's own maps.
        model_lock: held while the model is asked, where others ask it, too.
        options: how the model looks; refinement is decided here.
    """

    def __init__(
        self,
        model: TTD,
        sam: SAMRefiner | None = None,
        *,
        model_lock: Lock | None = None,
        options: Options | None = None,
    ) -> None:
        from ttd.inference.options import Options

        self._model, self._sam = model, sam
        self._options = replace(options or Options(), refine="none")
        threshold = self._options.threshold(model.encoder)
        self.cut = model.encoder.background if threshold is None else threshold
        self._lock = threading.RLock()
        self._model_lock = model_lock or Lock()

    @property
    def source(self) -> str:
        """What draws the masks: "sam-hq" or "own map"."""
        return "own map" if self._sam is None else "sam-hq"

    def look(self, image: Image.Image, caption: str) -> Look:
        """Encodes an image for both models and scores the caption's words, those that are no stop words."""
        with self._lock:
            candidates: tuple[Candidate, ...] = ()
            with self._model_lock:
                seen = self._model.encode(image, self._options)
                if words := candidate_words(caption):
                    scored = self._model.tag(seen, None, tags=words).words
                    candidates = tuple(Candidate(word.text, word.score, word.selected) for word in scored)
            sam_seen = None if self._sam is None else self._sam.encode(image)
            return Look((image.height, image.width), candidates, seen, sam_seen)

    def prepare(self, look: Look, words: Sequence[str]) -> None:
        """Maps of several words at once, which is quicker than one by one."""
        with self._lock:
            missing = [word for word in words if word not in look._heat]
            if missing:
                with self._model_lock:
                    maps = self._model.heatmaps(look._seen, missing)
                look._heat.update(zip(missing, maps, strict=True))

    def mask(self, look: Look, word: str, prompts: Prompts) -> Mask:
        """The mask bool [H,W] that is proposed for a word after what was said about it; do not change it.

        Without points and boxes SAM-HQ redraws our own map along the edges it sees. Points outside the word alone
        correct that map before it is redrawn.
        """
        with self._lock:
            if (word, prompts) not in look._masks:
                look._masks[word, prompts] = painted(self._proposed(look, word, prompts), prompts.dabs)
            return look._masks[word, prompts]

    def remember(self, look: Look, word: str, prompts: Prompts, mask: Mask) -> None:
        """What was decided before is the answer to the same prompts, whichever models drew it."""
        with self._lock:
            look._masks[word, prompts] = mask

    def _proposed(self, look: Look, word: str, prompts: Prompts) -> Mask:
        if prompts.empty:
            return np.zeros(look.size, np.bool_)
        asked = bool(prompts.boxes) or any(point.inside for point in prompts.points)
        if self._sam is not None and look._sam_seen is not None and asked:
            return mask_from_sam(self._sam, look._sam_seen, prompts)
        self.prepare(look, [word])
        mask = mask_from_map(look._heat[word], prompts, self.cut)
        if self._sam is not None and look._sam_seen is not None:
            redrawn: Mask = self._sam.redraw(look._sam_seen, mask[None], exclusive=False)[0][0]
            return redrawn
        return mask


def candidate_words(caption: str) -> list[str]:
    """The distinct words of a caption in lower case, without stop words and punctuation."""
    words = dict.fromkeys(word.text.lower() for word in split_words(caption))
    return [word for word in words if not is_stop_word(word)]
