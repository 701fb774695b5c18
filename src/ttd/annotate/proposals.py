"""What is suggested to the annotator: the words that the scores select, and a mask for each."""

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
    """SAM-HQ's mask bool [H,W] for prompts with at least one point inside or one box."""
    mask = np.zeros(embedding.size, np.bool_)
    outside = [point for point in prompts.points if not point.inside]
    for box, inside in _queries(prompts):
        points = [*inside, *outside]
        spots = [[(point.x, point.y) for point in points]] if points else None
        labels = [[int(point.inside) for point in points]] if points else None
        boxes = [(box.left, box.top, box.right, box.bottom)] if box else None
        # A single point does not tell whether a part or the whole is meant: then SAM-HQ's best of three masks is taken.
        prediction = sam.predict(embedding, spots, labels, boxes, multimask=box is None and len(points) == 1)
        mask |= prediction.masks[0]
    return mask


def _queries(prompts: Prompts) -> list[tuple[Box | None, Sequence[Point]]]:
    """Each box (or none) with the points inside the word that belong to it."""
    inside = [point for point in prompts.points if point.inside]
    free = [point for point in inside if not any(_contains(box, point) for box in prompts.boxes)]
    queries: list[tuple[Box | None, Sequence[Point]]] = [
        (box, [point for point in inside if _contains(box, point)]) for box in prompts.boxes
    ]
    return [*queries, (None, free)] if free else queries


def _contains(box: Box, point: Point) -> bool:
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom


@dataclass(frozen=True)
class Candidate:
    """A distinct word of the caption that may be true, in lower case.

    Attributes:
        text: the word.
        score: s_pixel, a cosine.
        proposed: whether it is selected (by the largest gap).
    """

    text: str
    score: float
    proposed: bool


@dataclass(eq=False)
class EncodedPair:
    """An image encoded once by both models, and its caption's words; made by `Proposer.encode`, for `Proposer.mask`.

    Attributes:
        size: (H, W) of the image.
        candidates: the caption's distinct words with their scores, without stop words.
    """

    size: tuple[int, int]
    candidates: tuple[Candidate, ...]
    _image: EncodedImage
    _embedding: SAMEmbedding | None
    _heat: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _masks: dict[tuple[str, Prompts], Mask] = field(default_factory=dict)


class Proposer:
    """A model, and SAM-HQ where there is one. Several threads may use it; one computes at a time.

    Args:
        model: scores the words and maps them.
        sam: draws the masks; None: they are the model's own maps at a threshold.
        model_lock: held while the model computes, for a model that others use, too.
        options: of the model's maps; `refine` is set to "none".

    Attributes:
        threshold: of the maps, where a word's prompts have none.
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
        self.threshold = model.encoder.background if threshold is None else threshold
        self._lock = threading.RLock()
        self._model_lock = model_lock or Lock()

    @property
    def mask_source(self) -> str:
        """What proposes the masks: "sam-hq" or "own map"."""
        return "own map" if self._sam is None else "sam-hq"

    def encode(self, image: Image.Image, caption: str) -> EncodedPair:
        """Encodes an image with both models and scores the caption's words, without stop words."""
        with self._lock:
            candidates: tuple[Candidate, ...] = ()
            with self._model_lock:
                image_features = self._model.encode(image, self._options)
                if words := candidate_words(caption):
                    scored = self._model.tag(image_features, None, tags=words).words
                    candidates = tuple(Candidate(word.text, word.score, word.selected) for word in scored)
            embedding = None if self._sam is None else self._sam.encode(image)
            return EncodedPair((image.height, image.width), candidates, image_features, embedding)

    def prepare(self, encoded: EncodedPair, words: Sequence[str]) -> None:
        """Computes the maps of several words at once, which is faster than one by one."""
        with self._lock:
            missing = [word for word in words if word not in encoded._heat]
            if missing:
                with self._model_lock:
                    maps = self._model.heatmaps(encoded._image, missing)
                encoded._heat.update(zip(missing, maps, strict=True))

    def mask(self, encoded: EncodedPair, word: str, prompts: Prompts) -> Mask:
        """The mask bool [H,W] that is proposed for a word with these prompts; do not change it.

        Without boxes and points inside, SAM-HQ redraws the mask from the model's own map; points outside correct that
        mask before it is redrawn.
        """
        with self._lock:
            if (word, prompts) not in encoded._masks:
                encoded._masks[word, prompts] = painted(self._proposed(encoded, word, prompts), prompts.dabs)
            return encoded._masks[word, prompts]

    def remember(self, encoded: EncodedPair, word: str, prompts: Prompts, mask: Mask) -> None:
        """Makes a mask that was accepted before the proposal for its prompts, whichever model drew it."""
        with self._lock:
            encoded._masks[word, prompts] = mask

    def _proposed(self, encoded: EncodedPair, word: str, prompts: Prompts) -> Mask:
        if prompts.empty:
            return np.zeros(encoded.size, np.bool_)
        prompted = bool(prompts.boxes) or any(point.inside for point in prompts.points)
        if self._sam is not None and encoded._embedding is not None and prompted:
            return mask_from_sam(self._sam, encoded._embedding, prompts)
        self.prepare(encoded, [word])
        mask = mask_from_map(encoded._heat[word], prompts, self.threshold)
        if self._sam is not None and encoded._embedding is not None:
            redrawn: Mask = self._sam.redraw(encoded._embedding, mask[None], exclusive=False)[0][0]
            return redrawn
        return mask


def candidate_words(caption: str) -> list[str]:
    """The distinct words of a caption in lower case, without stop words and punctuation."""
    words = dict.fromkeys(word.text.lower() for word in split_words(caption))
    return [word for word in words if not is_stop_word(word)]
