"""Jobs that ask an encoder about a shard's pairs: the cosine of image and caption, by which pairs are pruned (paper,
appendix), and how words score on images, which a calibration is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ttd.data.bad_samples import TRUNCATED_CAPTIONS
from ttd.data.shard_jobs import ShardJob, ShardNotes, usable_batches
from ttd.data.sources import PairSource
from ttd.data.tables import SCORES
from ttd.encoders.base import Encoder
from ttd.errors import InputError, ModelError
from ttd.images import normalise_pixels, prepare_pixels
from ttd.inference.device import inference
from ttd.negatives import NegativeWords, caption_words, digest
from ttd.scoring import s_pixel
from ttd.text.words import templates

T = TypeVar("T")


@dataclass(frozen=True)
class _PreparedPair:
    shard: str
    key: str
    pixels: NDArray[np.uint8]  # [S,S,3]
    captions: tuple[str, ...]


class EncoderJob(ShardJob):
    """Square images of one size, read on threads and encoded in batches."""

    def __init__(self, encoder: Encoder, size: int, batch: int, threads: int, settings: dict[str, Any]) -> None:
        self.encoder, self.size, self.batch, self.threads = encoder, size, batch, threads
        self.settings = {**settings, "base": encoder.fingerprint(), "size": size}

    def _batches(
        self, prepare: Callable[[PairSource, int], T], source: PairSource, indices: Sequence[int], notes: ShardNotes
    ) -> Iterator[list[T]]:
        return usable_batches(partial(prepare, source), indices, self.batch, self.threads, notes)

    @staticmethod
    def _finite(scores: Tensor) -> Tensor:
        if not bool(scores.isfinite().all()):
            raise ModelError("a score is not finite: load the model with --dtype float32 or bfloat16")
        return scores.cpu()


class ScoreJob(EncoderJob):
    """Scores of all pairs of a shard: Parquet columns shard, key, score (float32, -1..1).

    An image is resized until its shorter side is `size` (bicubic) and cut to the square in its middle, as
    CLIP was trained; a JPEG that is large enough is decoded at a fraction of its size first. The score of an image with
    several captions is the mean of their cosines.

    Args:
        encoder: in evaluation mode.
        size: side in pixels, a multiple of the patch size; None: the encoder's own `pruning_size`.
        flip: the mean of the cosines of the image and of its mirror image.
        batch: images that are encoded at once.
        threads: that read and decode images.
        settings: more of what decides the results (an adapter, the number format).
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        size: int | None = None,
        flip: bool = True,
        batch: int = 64,
        threads: int = 4,
        settings: dict[str, Any] | None = None,
    ) -> None:
        size = size or encoder.pruning_size
        if size % encoder.patch_size:
            raise InputError(
                f"a side of {size} pixels is not a multiple of this encoder's patches of "
                f"{encoder.patch_size}: choose another size"
            )
        super().__init__(encoder, size, batch, threads, {**(settings or {}), "flip": flip, "jpeg": "scaled"})
        self.flip = flip

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        keys: list[str] = []
        scores: list[float] = []
        names: list[str] = []
        for batch in self._batches(self._prepare, source, indices, notes):
            names += [pair.shard for pair in batch]
            keys += [pair.key for pair in batch]
            captions = [pair.captions for pair in batch]
            scores += self.score([pair.pixels for pair in batch], captions).tolist()
            notes.counts[TRUNCATED_CAPTIONS] += sum(
                self.encoder.truncated_texts([one for several in captions for one in several])
            )
        return pa.table([names, keys, scores], schema=SCORES)

    @inference
    def score(self, pixels: Sequence[NDArray[np.uint8]], captions: list[tuple[str, ...]]) -> Tensor:
        """Scores `[B]` of images, uint8 `[S,S,3]`, with one or more captions each."""
        encoder = self.encoder
        images = normalise_pixels(torch.from_numpy(np.stack(pixels)).to(encoder.device), encoder.mean, encoder.std)
        every = [caption for several in captions for caption in several]
        text = self.encoder.encode_text(every)
        counts = torch.tensor([len(several) for several in captions], device=text.device)
        owner = torch.repeat_interleave(torch.arange(len(captions), device=text.device), counts)
        views = [images, images.flip(-1)] if self.flip else [images]
        pooled = torch.stack([self.encoder.encode_pooled(view) for view in views]).mean(0)  # [B,C]
        cosines = (pooled[owner] * text).sum(-1)
        scores = torch.zeros(len(captions), device=text.device).index_add_(0, owner, cosines) / counts
        return self._finite(scores)

    def _prepare(self, source: PairSource, index: int) -> _PreparedPair:
        pair = source.pair(index, self.size)
        pixels = np.asarray(centre_square(pair.image, self.size))
        return _PreparedPair(pair.shard, pair.key, pixels, pair.captions)


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to `side` (bicubic) and cut out the middle: an RGB image of side x side."""
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


COUNTS = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("bin", "own", "others")])
WIDTH = 0.0005  # of a bin: bin n holds scores from n * WIDTH to (n + 1) * WIDTH


@dataclass(frozen=True)
class _PreparedWords:
    pixels: Tensor  # [3,S,S]
    words: tuple[str, ...]  # of all captions, distinct, those of the list
    said: tuple[str, ...]  # all words of the captions


class WordScoreJob(EncoderJob):
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
            raise InputError("negative words come from other images of the batch: use a batch of at least 2")
        about = {"method": encoder.method_name, "batch": batch, "words": digest(words)}
        about["templates"] = encoder.default_templates
        size = max(1, round(encoder.image_size / encoder.patch_size)) * encoder.patch_size
        super().__init__(encoder, size, batch, threads, {**(settings or {}), **about})
        self._row = {word: row for row, word in enumerate(words)}
        self._text: Tensor | None = None

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        own: dict[int, int] = {}
        others: dict[int, int] = {}
        for batch in self._batches(self._prepare, source, indices, notes):
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
        return self._finite(s_pixel(sim, features.inside((sim.shape[-2], sim.shape[-1])))).float().numpy()

    def _prepare(self, source: PairSource, index: int) -> _PreparedWords:
        pair = source[index]
        square = centre_square(pair.image, self.size)
        pixels = prepare_pixels(square, (self.size, self.size), self.encoder.mean, self.encoder.std)
        said = caption_words(pair.captions)
        return _PreparedWords(pixels, tuple(word for word in said if word in self._row), tuple(said))


def _add(counts: dict[int, int], scores: NDArray[np.float32], times: NDArray[np.int64]) -> None:
    for place, number in zip(np.floor(scores.astype(np.float64) / WIDTH).astype(np.int64), times, strict=True):
        counts[int(place)] = counts.get(int(place), 0) + int(number)
