"""Count how words score on images: own words, and words of other captions (what a calibration is fitted to)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttd.data.pair_scores import centre_square
from ttd.data.shard_jobs import ShardJob, ShardNotes, usable_batches
from ttd.data.sources import PairSource
from ttd.device import inference
from ttd.encoders.base import Encoder
from ttd.errors import InputError, ModelError
from ttd.images import prepare_pixels
from ttd.negatives import NegativeWords, caption_words, digest
from ttd.scoring import s_pixel
from ttd.text.templates import templates

COUNTS = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("bin", "own", "others")])
WIDTH = 0.0005  # of a bin: bin n holds scores from n * WIDTH to (n + 1) * WIDTH


@dataclass(frozen=True)
class _PreparedWords:
    pixels: Tensor  # [3,S,S]
    words: tuple[str, ...]  # of all captions, distinct, those of the list
    said: tuple[str, ...]  # all words of the captions


class WordScoreJob(ShardJob):
    """s_pixel of a shard's words, counted in bins: Parquet columns bin, own, others.

    Only words of a list count (visible things): adjectives and the like score alike on every image. "Own" are those
    that an image's captions say; "others" those that captions of the other images of its batch say and its own do not,
    nor anything akin (`ttd.negatives.akin`), each as often as it is said there. An image is resized and cut to a square
    as for pruning, at the encoder's own size.

    Args:
        encoder: in evaluation mode.
        words: the list, distinct, lower case.
        batch: images that are encoded at once, and lend each other words.
        threads: that read and decode images.
        settings: more of what decides the results (an adapter, the number format).
    """

    def __init__(
        self,
        encoder: Encoder,
        words: Sequence[str],
        *,
        batch: int = 32,
        threads: int = 4,
        settings: dict[str, Any] | None = None,
    ) -> None:
        if batch < 2:
            raise InputError("images lend each other words: take a batch of at least 2")
        self.encoder, self.batch, self.threads = encoder, batch, threads
        self._row = {word: row for row, word in enumerate(words)}
        self._text: Tensor | None = None
        size = encoder.image_size
        self.size = max(1, round(size / encoder.patch_size)) * encoder.patch_size
        self.settings = {
            **(settings or {}),
            "base": encoder.fingerprint(),
            "method": encoder.method_name,
            "size": self.size,
            "batch": batch,
            "words": digest(words),
            "templates": encoder.default_templates,
        }

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        own: dict[int, int] = {}
        others: dict[int, int] = {}
        for batch in usable_batches(lambda i: self._prepare(source, i), indices, self.batch, self.threads, notes):
            self._count(batch, own, others)
        bins = sorted(own.keys() | others.keys())
        return pa.table([bins, [own.get(b, 0) for b in bins], [others.get(b, 0) for b in bins]], schema=COUNTS)

    def _count(self, batch: list[_PreparedWords], own: dict[int, int], others: dict[int, int]) -> None:
        """Adds a batch's words to the counts by bin."""
        said: dict[str, int] = {}  # word -> by how many images
        for one in batch:
            for word in one.words:
                said[word] = said.get(word, 0) + 1
        if not said:
            return
        scores = self._scores([one.pixels for one in batch], list(said))
        column = {word: n for n, word in enumerate(said)}
        null, times = NegativeWords(said), np.array(list(said.values()))
        places = np.array([column[text] for text in null.texts])
        for row, one in zip(scores, batch, strict=True):
            mine = [column[word] for word in one.words]
            _add(own, row[mine], np.ones(len(mine), np.int64))
            free = places[np.array(null.others(one.said), bool)]
            _add(others, row[free], times[free])

    @inference
    def _scores(self, pixels: list[Tensor], words: list[str]) -> NDArray[np.float32]:
        """s_pixel `[B,N]` of words on normalised images `[3,S,S]`."""
        encoder = self.encoder
        if self._text is None:  # the whole list at once: a text's last digits depend on what shares its batch
            self._text = encoder.encode_text(list(self._row), templates(encoder.default_templates))
        features = encoder.encode_image(torch.stack(pixels).to(encoder.device))
        text = self._text[[self._row[word] for word in words]]
        sim = encoder.similarity(features, text)
        scores = s_pixel(sim, features.inside((sim.shape[-2], sim.shape[-1])))
        if not bool(scores.isfinite().all()):
            raise ModelError("a score is not finite: load the model with --dtype float32 or bfloat16")
        return scores.float().cpu().numpy()

    def _prepare(self, source: PairSource, index: int) -> _PreparedWords:
        pair = source[index]
        square = centre_square(pair.image, self.size)
        pixels = prepare_pixels(square, (self.size, self.size), self.encoder.mean, self.encoder.std)
        said = caption_words(pair.captions)
        return _PreparedWords(pixels, tuple(word for word in said if word in self._row), tuple(said))


def _add(counts: dict[int, int], scores: NDArray[np.float32], times: NDArray[np.int64]) -> None:
    for place, number in zip(np.floor(scores.astype(np.float64) / WIDTH).astype(np.int64), times, strict=True):
        counts[int(place)] = counts.get(int(place), 0) + int(number)
