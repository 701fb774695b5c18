"""Let a model choose the words of every caption beforehand; training reads the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from ttd.data.damage import DamagedPair
from ttd.data.pairs import Pair, PairSource
from ttd.data.shard_jobs import ShardJob, read_ahead
from ttd.data.tables import WORDS
from ttd.model import TTD
from ttd.words import split_words


class TagJob(ShardJob):
    """The selected words of all captions of a shard: Parquet columns shard, key, tags.

    `tags` has for every caption the list of its selected words, in caption order; it is empty where the
    caption has no words left besides stop words.

    Args:
        model: chooses the words.
        score, selection, threshold, stop_words: as for `TTD.tag_many`; stop words are kept by default, as
            in the paper's training.
        batch: pairs that are read, and pictures of one shape that are encoded, at once.
        threads: that read and decode pictures.
        options: as for `TTD.tag_many`.
        settings: more of what decides the results (an adapter, the number format, a keep-list).
    """

    def __init__(
        self,
        model: TTD,
        *,
        score: str = "s_pixel",
        selection: str | None = None,
        threshold: float = 0.5,
        stop_words: bool = False,
        batch: int = 16,
        threads: int = 4,
        options: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.stop_words = stop_words
        self.batch = batch
        self.threads = threads
        self.options = {
            **(options or {}),
            "score": score,
            "selection": selection,
            "threshold": threshold,
            "stop_words": stop_words,
        }
        self.settings = {**(settings or {}), **self.options, "base": model.encoder.fingerprint()}

    def table(self, source: PairSource, indices: range, skip: Callable[[DamagedPair], None]) -> pa.Table:
        """See `ShardJob`."""
        rows: list[tuple[str, str, list[list[str]]]] = []
        for read in read_ahead(source.__getitem__, indices, self.batch, self.threads):
            pairs = []
            for one in read:
                if isinstance(one, DamagedPair):
                    skip(one)
                else:
                    pairs.append(one)
            rows += [(pair.shard, pair.key, tags) for pair, tags in zip(pairs, self.choose(pairs), strict=True)]
        return pa.table([[row[i] for row in rows] for i in range(3)], schema=WORDS)

    def choose(self, pairs: list[Pair]) -> list[list[list[str]]]:
        """For every pair, for every caption: the selected words."""
        tags: list[list[list[str]]] = [[[] for _ in pair.captions] for pair in pairs]
        asked = [
            (i, j)
            for i, pair in enumerate(pairs)
            for j, caption in enumerate(pair.captions)
            if split_words(caption, self.stop_words)
        ]
        single = [(i, j) for i, j in asked if len(pairs[i].captions) == 1]
        self._fill(tags, pairs, single, [pairs[i].image for i, _ in single])
        for i, pair in enumerate(pairs):
            mine = [(owner, j) for owner, j in asked if owner == i and (owner, j) not in single]
            if mine:
                encoded = self.model.encode(pair.image, **self._view_options())
                self._fill(tags, pairs, mine, [encoded] * len(mine))
        return tags

    def _fill(
        self, tags: list[list[list[str]]], pairs: list[Pair], asked: list[tuple[int, int]], images: list[Any]
    ) -> None:
        if not asked:
            return
        captions = [pairs[i].captions[j] for i, j in asked]
        found = self.model.tag_many(images, captions, batch_size=self.batch, **self.options)
        for (i, j), tagging in zip(asked, found, strict=True):
            tags[i][j] = tagging.selected

    def _view_options(self) -> dict[str, Any]:
        rule = ("score", "selection", "threshold", "stop_words")
        return {name: value for name, value in self.options.items() if name not in rule}
