"""Choose the words of every caption beforehand, by a model or by a tagger of the text: the table of visible words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Generic, TypeVar

import pyarrow as pa

from ttd.data.bad_samples import NO_ANSWER, BadSample
from ttd.data.shard_jobs import ShardJob, ShardNotes, usable_batches
from ttd.data.sources import Captioned, Pair, PairSource
from ttd.data.word_table import Token, Tokens, token_table
from ttd.errors import TTDError
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.negatives import digest
from ttd.results import Tagging
from ttd.selection import Selection, find_selection
from ttd.taggers import Caption, Chosen, TextTagger
from ttd.text.words import Word, is_punctuation, is_stop_word, is_unspaced, split_words

Read = TypeVar("Read", Pair, Captioned)


class Chooser(ABC, Generic[Read]):
    """Chooses words for what it reads of a pair.

    Attributes:
        settings: what decides the choice, in plain values.
    """

    settings: dict[str, Any]

    def begin(self) -> None:
        """Called before each shard, whose words shall not depend on the shards that this process did before."""

    @abstractmethod
    def read(self, source: PairSource, index: int) -> Read:
        """What the choice needs of a pair; raises `BadSample`."""

    @abstractmethod
    def choose(self, pairs: Sequence[Read]) -> list[Tokens]:
        """For every pair, for every caption its tokens, in caption order; None where there is no answer for it."""


class TagTableJob(ShardJob):
    """Every token of all captions of a shard, and which are chosen; see `ttd.data.word_table`.

    A pair for which the chooser has no answer counts as damaged.

    Args:
        chooser: of the words.
        form: "long" or "nested".
        batch: pairs that are read and asked about at once.
        threads: that read and decode images.
        settings: more of what decides the results (a keep-list).
    """

    def __init__(
        self,
        chooser: Chooser[Any],
        *,
        form: str = "long",
        batch: int = 16,
        threads: int = 4,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.chooser, self.batch, self.threads = chooser, batch, threads
        self.form = form
        self.settings = {**(settings or {}), **chooser.settings, "form": form}

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        self.chooser.begin()
        pieces = [token_table([], self.form)]
        read = partial(self.chooser.read, source)
        for pairs in usable_batches(read, indices, self.batch, self.threads, notes):
            notes.counts["unspaced_captions"] += sum(
                is_unspaced(caption) for pair in pairs for caption in pair.captions
            )
            rows = []
            for pair, captions in zip(pairs, self.chooser.choose(pairs), strict=True):
                rows.append((pair.shard, pair.key, captions))
                if captions is None:
                    notes.skip(BadSample(NO_ANSWER, pair.shard, pair.key))
                else:
                    found = (token.word for tokens in captions for token in tokens if token.is_unknown)
                    notes.unknown.update(word.lower() for word in found if word)
            pieces.append(token_table(rows, self.form))
        return pa.concat_tables(pieces).combine_chunks()


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

    def begin(self) -> None:
        """Forgets the texts of other shards."""
        self.model.forget_texts()

    def read(self, source: PairSource, index: int) -> Pair:
        """The whole pair."""
        return source[index]

    def choose(self, pairs: Sequence[Pair]) -> list[Tokens]:
        """See `Chooser`."""
        found: dict[tuple[int, int], Tagging] = {}
        asked = [
            (i, j)
            for i, pair in enumerate(pairs)
            for j, caption in enumerate(pair.captions)
            if split_words(caption, self.options.stop_words)
        ]
        single = [(i, j) for i, j in asked if len(pairs[i].captions) == 1]
        self._tag(found, pairs, single, [pairs[i].image for i, _ in single])
        for i, pair in enumerate(pairs):
            mine = [(owner, j) for owner, j in asked if owner == i and (owner, j) not in single]
            if mine:
                encoded = self.model.encode(pair.image, self.options)
                self._tag(found, pairs, mine, [encoded] * len(mine))
        return [
            [_scored(caption, found.get((i, j))) for j, caption in enumerate(pair.captions)]
            for i, pair in enumerate(pairs)
        ]

    def _tag(
        self,
        found: dict[tuple[int, int], Tagging],
        pairs: Sequence[Pair],
        asked: list[tuple[int, int]],
        images: list[Any],
    ) -> None:
        if not asked:
            return
        captions = [pairs[i].captions[j] for i, j in asked]
        answers = self.model.tag_many(
            images, captions, selection=self.selection, batch_size=self.batch, options=self.options
        )
        for place, tagging in zip(asked, answers, strict=True):
            if isinstance(tagging, TTDError):
                raise tagging
            found[place] = tagging


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

    def choose(self, pairs: Sequence[Captioned]) -> list[Tokens]:
        """See `Chooser`."""
        words = [[split_words(text) for text in pair.captions] for pair in pairs]
        asked = [
            Caption(text, tuple(word.text for word in split))
            for pair, several in zip(pairs, words, strict=True)
            for text, split in zip(pair.captions, several, strict=True)
        ]
        answers = iter(self.tagger.choose(asked))
        every: list[Tokens] = []
        for several in words:
            chosen = [next(answers) for _ in several]
            tokens = [self._tokens(split, one) for split, one in zip(several, chosen, strict=True) if one is not None]
            every.append(tokens if len(tokens) == len(several) else None)
        return every

    def _tokens(self, words: Sequence[Word], chosen: Chosen) -> list[Token]:
        own = [
            _token(word, selected=selected and self._counts(word.text))
            for word, selected in zip(words, chosen.selected, strict=True)
        ]
        others = [Token(word, selected=True) for word in chosen.others if self._counts(word)]
        return own + others

    def _counts(self, word: str) -> bool:
        return not (self.stop_words and is_stop_word(word))


def _scored(caption: str, tagging: Tagging | None) -> list[Token]:
    """All tokens of a caption; those that the model was not asked about have no score."""
    scored = {} if tagging is None else {word.index: word for word in tagging.words}
    unknown = frozenset() if tagging is None else frozenset(tagging.unknown)
    tokens = []
    for word in split_words(caption):
        token = _token(word)._replace(is_unknown=word.text.lower() in unknown)
        if (found := scored.get(word.index)) is not None:
            token = token._replace(score=found.score, percentile=found.percentile, selected=found.selected)
        tokens.append(token)
    return tokens


def _token(word: Word, selected: bool = False) -> Token:
    punctuation = is_punctuation(word.text)
    is_stop = not punctuation and is_stop_word(word.text)
    return Token(word.text, word.start, word.end, selected=selected, is_stop=is_stop, is_punct=punctuation)


def some_captions(source: PairSource, most: int = 10_000) -> Iterator[str]:
    """The captions of at most `most` pairs, evenly over the source: enough to take negative words from, soon read.

    Damaged pairs are left out; who goes through them all counts them.
    """
    for index in range(0, len(source), max(1, -(-len(source) // most))):
        try:
            yield from source.captioned(index).captions
        except BadSample:
            continue
