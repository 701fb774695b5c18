"""Choose the words of every caption beforehand, by a model or by a tagger of the text; training reads the tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import pyarrow as pa

from ttd.data.bad_samples import NO_ANSWER, BadSample
from ttd.data.shard_jobs import ShardJob, ShardNotes
from ttd.data.sources import Captioned, Pair, PairSource
from ttd.data.tables import WORDS
from ttd.errors import TTDError
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.negatives import digest
from ttd.runs import read_ahead
from ttd.tagger import Selection, find_selection
from ttd.taggers.base import Caption, TextTagger
from ttd.text.words import is_stop_word, is_unspaced, split_words

# For every caption of a pair the chosen words.
Tags = list[list[str]]
Read = TypeVar("Read", Pair, Captioned)


class Chooser(ABC, Generic[Read]):
    """Chooses words for what it reads of a pair.

    Attributes:
        settings: what decides the choice, in plain values.
    """

    settings: dict[str, Any]

    @abstractmethod
    def read(self, source: PairSource, index: int) -> Read:
        """What the choice needs of a pair; raises `BadSample`."""

    @abstractmethod
    def choose(self, pairs: Sequence[Read]) -> list[Tags | None]:
        """For every pair, for every caption the words, in caption order; None where there is no answer for it."""


class TagTableJob(ShardJob):
    """The chosen words of all captions of a shard: Parquet columns shard, key, tags.

    `tags` has for every caption the list of its words; it is empty where none was chosen. Where the chooser has no
    answer `tags` is null and the pair counts as damaged.

    Args:
        chooser: of the words.
        batch: pairs that are read and asked about at once.
        threads: that read and decode images.
        settings: more of what decides the results (a keep-list).

    Attributes:
        unspaced: captions read so far whose words are written without spaces.
    """

    def __init__(
        self,
        chooser: Chooser[Any],
        *,
        batch: int = 16,
        threads: int = 4,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.chooser, self.batch, self.threads = chooser, batch, threads
        self.unspaced = 0
        self.settings = {**(settings or {}), **chooser.settings}

    def table(self, source: PairSource, indices: range, notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        rows: list[tuple[str, str, Tags | None]] = []
        for read in read_ahead(lambda i: self.chooser.read(source, i), indices, self.batch, self.threads, BadSample):
            pairs = []
            for one in read:
                if isinstance(one, BadSample):
                    notes.skip(one)
                else:
                    pairs.append(one)
            self.unspaced += sum(is_unspaced(caption) for pair in pairs for caption in pair.captions)
            for pair, tags in zip(pairs, self.chooser.choose(pairs), strict=True):
                rows.append((pair.shard, pair.key, tags))
                if tags is None:
                    notes.skip(BadSample(NO_ANSWER, pair.shard, pair.key))
            notes.progress(len(read))
        return pa.table([[row[i] for row in rows] for i in range(3)], schema=WORDS)


class ModelChooser(Chooser[Pair]):
    """The words that one of our models selects.

    Args:
        model: scores the words.
        selection: as for `TTD.tag_many`.
        batch: images of one shape that are encoded at once.
        options: as for `TTD.tag_many`; None keeps stop words, as in the paper's training.
        settings: more of what decides the results (an adapter, the number format).
    """

    def __init__(
        self,
        model: TTD,
        *,
        selection: Selection | str | None = None,
        batch: int = 16,
        options: Options | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.batch = batch
        self.selection = find_selection(selection)
        self.options = options or Options(stop_words=False)
        rule = {**asdict(self.selection), "negatives": digest(self.selection.negatives)}
        encoder = model.encoder
        own = {"base": encoder.fingerprint(), "encoder": encoder.settings()}
        self.settings = {**(settings or {}), **asdict(self.options), **rule, **own}

    def read(self, source: PairSource, index: int) -> Pair:
        """The whole pair."""
        return source[index]

    def choose(self, pairs: Sequence[Pair]) -> list[Tags | None]:
        """See `Chooser`."""
        tags: list[Tags] = [[[] for _ in pair.captions] for pair in pairs]
        asked = [
            (i, j)
            for i, pair in enumerate(pairs)
            for j, caption in enumerate(pair.captions)
            if split_words(caption, self.options.stop_words)
        ]
        single = [(i, j) for i, j in asked if len(pairs[i].captions) == 1]
        self._fill(tags, pairs, single, [pairs[i].image for i, _ in single])
        for i, pair in enumerate(pairs):
            mine = [(owner, j) for owner, j in asked if owner == i and (owner, j) not in single]
            if mine:
                encoded = self.model.encode(pair.image, self.options)
                self._fill(tags, pairs, mine, [encoded] * len(mine))
        return list(tags)

    def _fill(self, tags: list[Tags], pairs: Sequence[Pair], asked: list[tuple[int, int]], images: list[Any]) -> None:
        if not asked:
            return
        captions = [pairs[i].captions[j] for i, j in asked]
        found = self.model.tag_many(
            images, captions, selection=self.selection, batch_size=self.batch, options=self.options
        )
        for (i, j), tagging in zip(asked, found, strict=True):
            if isinstance(tagging, TTDError):
                raise tagging
            tags[i][j] = tagging.selected


class TextChooser(Chooser[Captioned]):
    """The words that a tagger chooses from the caption alone.

    Args:
        tagger: see `ttd.taggers`.
        stop_words: leave stop words out.
        look: read and decode the images too, only to find the damaged ones.
    """

    def __init__(self, tagger: TextTagger, *, stop_words: bool = False, look: bool = False) -> None:
        self.tagger, self.stop_words, self.look = tagger, stop_words, look
        self.settings = {**tagger.settings, "stop_words": stop_words, "images_read": look}

    def read(self, source: PairSource, index: int) -> Captioned:
        """The captions."""
        if self.look:
            pair = source[index]
            return Captioned(pair.shard, pair.key, pair.captions)
        return source.captioned(index)

    def choose(self, pairs: Sequence[Captioned]) -> list[Tags | None]:
        """See `Chooser`."""
        captions = [[_split(text) for text in pair.captions] for pair in pairs]
        found = iter(self.tagger.choose([caption for several in captions for caption in several]))
        every: list[Tags | None] = []
        for several in captions:
            chosen = [(next(found), caption) for caption in several]
            tags = [one.words(caption) for one, caption in chosen if one is not None]
            every.append([self._kept(words) for words in tags] if len(tags) == len(several) else None)
        return every

    def _kept(self, words: list[str]) -> list[str]:
        return [word for word in words if not (self.stop_words and is_stop_word(word))]


def some_captions(source: PairSource, most: int = 10_000) -> Iterator[str]:
    """The captions of at most `most` pairs, evenly over the source: enough to take negative words from, soon read.

    Damaged pairs are left out; who goes through them all counts them.
    """
    for index in range(0, len(source), max(1, -(-len(source) // most))):
        try:
            yield from source.captioned(index).captions
        except BadSample:
            continue


def _split(text: str) -> Caption:
    return Caption(text, tuple(word.text for word in split_words(text)))
