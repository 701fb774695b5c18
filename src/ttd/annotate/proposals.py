"""Suggestions for the annotator: the words that the scores select, and a mask for each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttd.annotate.masks import Box, Mask, Point, Prompts, filled, mask_from_map, painted
from ttd.lru_cache import LRUCache
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
        notice: where the image is not what the model learned from, see `TTD.notice`.
        number: another one for every pair of a proposer.
    """

    size: tuple[int, int]
    candidates: tuple[Candidate, ...]
    notice: str | None
    number: int
    _image: EncodedImage
    _embedding: SAMEmbedding | None
    _accepted: dict[tuple[str, Prompts], NDArray[np.uint8]] = field(default_factory=dict)


# Together, for all open items: a map or a mask has the image's own size, and every click gives another mask. What was
# removed is computed again.
HEAT_BYTES = 256 << 20
MASK_BYTES = 128 << 20  # of masks with eight pixels a byte


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
        self.threshold = self._options.caption_threshold(model.encoder)
        self._heat: LRUCache[tuple[int, str], NDArray[np.float32]] = LRUCache(HEAT_BYTES, lambda heat: heat.nbytes)
        self._masks: LRUCache[tuple[int, str, Prompts], NDArray[np.uint8]] = LRUCache(
            MASK_BYTES, lambda mask: mask.nbytes
        )
        self._numbers = itertools.count()
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
                notice = self._model.notice(image_features)
                if words := candidate_words(caption):
                    scored = self._model.tag(image_features, None, tags=words).words
                    candidates = tuple(Candidate(word.text, word.score, word.selected) for word in scored)
            embedding = None if self._sam is None else self._sam.encode(image)
            # Of the image only its size matters from here on; its pixels would stay as long as the item is open.
            features = replace(image_features, image=Image.new("1", image.size))
            return EncodedPair(
                (image.height, image.width), candidates, notice, next(self._numbers), features, embedding
            )

    def prepare(self, encoded: EncodedPair, words: Sequence[str]) -> None:
        """Computes the maps of several words at once, which is faster than one by one; no more than are kept."""
        fit = max(1, HEAT_BYTES // 2 // (4 * encoded.size[0] * encoded.size[1]))
        with self._lock:
            missing = [word for word in words if self._heat.get((encoded.number, word)) is None][:fit]
            if missing:
                with self._model_lock:
                    maps = self._model.heatmaps(encoded._image, missing, scale="calibrated")
                for word, heat in zip(missing, maps, strict=True):
                    # A copy: a map of its own can be freed alone.
                    self._heat.put((encoded.number, word), np.array(heat))

    def mask(self, encoded: EncodedPair, word: str, prompts: Prompts) -> Mask:
        """The mask bool [H,W] that is proposed for a word with these prompts.

        Without boxes and points inside, SAM-HQ redraws the mask from the model's own map; points outside correct that
        mask before it is redrawn.
        """
        key = (encoded.number, word, prompts)
        with self._lock:
            packed = encoded._accepted.get((word, prompts))
            if packed is None:
                packed = self._masks.get(key)
            if packed is None:
                packed = np.packbits(painted(self._proposed(encoded, word, prompts), prompts.dabs))
                self._masks.put(key, packed)
        height, width = encoded.size
        return np.unpackbits(packed, count=height * width).reshape(height, width).view(np.bool_)

    def remember(self, encoded: EncodedPair, word: str, prompts: Prompts, mask: Mask) -> None:
        """Makes a mask that was accepted before the proposal for its prompts, whichever model drew it."""
        with self._lock:
            encoded._accepted[word, prompts] = np.packbits(mask)

    def _proposed(self, encoded: EncodedPair, word: str, prompts: Prompts) -> Mask:
        if prompts.empty:
            return np.zeros(encoded.size, np.bool_)
        if prompts.outlines is not None:
            return filled(prompts.outlines, encoded.size)
        prompted = bool(prompts.boxes) or any(point.inside for point in prompts.points)
        if self._sam is not None and encoded._embedding is not None and prompted:
            return mask_from_sam(self._sam, encoded._embedding, prompts)
        self.prepare(encoded, [word])
        heat = self._heat.get((encoded.number, word))
        assert heat is not None, "the newest map is kept, whatever its size"
        mask = mask_from_map(heat, prompts, self.threshold)
        if self._sam is not None and encoded._embedding is not None:
            redrawn: Mask = self._sam.redraw(encoded._embedding, mask[None], exclusive=False)[0][0]
            return redrawn
        return mask


def candidate_words(caption: str) -> list[str]:
    """The distinct words of a caption in lower case, without stop words and punctuation."""
    words = dict.fromkeys(word.text.lower() for word in split_words(caption))
    return [word for word in words if not is_stop_word(word)]
