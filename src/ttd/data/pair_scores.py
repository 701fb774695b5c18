"""Score pairs: the cosine of the pooled image embedding and the caption's (paper, appendix on pruning)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from ttd.device import inference
from ttd.encoders.base import Encoder
from ttd.errors import InputError, ModelError
from ttd.images import normalise_pixels


@dataclass(frozen=True)
class _PreparedPair:
    shard: str
    key: str
    pixels: NDArray[np.uint8]  # [S,S,3]
    captions: tuple[str, ...]


class ScoreJob(ShardJob):
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
        self.encoder = encoder
        self.size = size or encoder.pruning_size
        if self.size % encoder.patch_size:
            raise InputError(
                f"a side of {self.size} pixels is no multiple of this encoder's patches of "
                f"{encoder.patch_size}: choose another size"
            )
        self.flip = flip
        self.batch = batch
        self.threads = threads
        self.settings = {
            **(settings or {}),
            "base": encoder.fingerprint(),
            "size": self.size,
            "flip": flip,
            "jpeg": "scaled",
        }

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        keys: list[str] = []
        scores: list[float] = []
        names: list[str] = []
        for batch in usable_batches(lambda i: self._prepare(source, i), indices, self.batch, self.threads, notes):
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
        if not bool(torch.isfinite(scores).all()):
            raise ModelError("a score is not finite: load the model with --dtype float32 or bfloat16")
        return scores.cpu()

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
