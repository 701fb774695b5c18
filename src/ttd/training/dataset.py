"""Pairs -> batches: crops, the distinct strings of a batch, and which of them each image needs.

The order is a seeded permutation and a step is a slice of it, so the position in the data is one number; every
rank takes every `world`-th pair of a step. What a batch holds depends on (seed, epoch, pairs) alone.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ttd.data.sources import BadSample, Pair, PairSource, epoch_order
from ttd.errors import InputError, OutOfMemory
from ttd.losses import find_loss_terms
from ttd.taggers import Caption, TextTagger
from ttd.taggers.nouns import open_nouns
from ttd.text.words import distinct, is_stop_word, split_words
from ttd.training.augment import CAPTION, NEGATIVES, PIXELS, Crop, draws, random_crop
from ttd.training.config import Config

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedPair:
    """One pair, augmented.

    Attributes:
        item: its number in the source.
        key: shard and key, for messages.
        crop: the pixels.
        captions: those that are trained on.
        words: for every caption its distinct words, lower case.
        given: for every caption the words that the data or the parser chose; None where the model chooses.
    """

    item: int
    key: str
    crop: Crop
    captions: list[str]
    words: list[list[str]]
    given: list[set[str]] | None


@dataclass
class Batch:
    """B images with M captions, N words and K negative words each, padded.

    Attributes:
        keys: B keys, for messages.
        pixels: uint8 `[B,S,S,3]`.
        rects: int64 `[B,4]`, where each image is in its square.
        words: W distinct words of the whole batch, each encoded once.
        captions: distinct captions of the whole batch.
        word_rows, word_valid: `[B,N]`, rows of `words`.
        caption_rows, caption_valid: `[B,M]`, rows of `captions`.
        member: bool `[B,M,N]`, which words are in which caption.
        given: bool `[B,N]`, words that the data or the parser chose.
        negative_rows, negatives_valid: `[B,K]`, rows of `words` that no caption of the image has.
    """

    keys: list[str]
    pixels: Tensor
    rects: Tensor
    words: list[str]
    captions: list[str]
    word_rows: Tensor
    word_valid: Tensor
    caption_rows: Tensor
    caption_valid: Tensor
    member: Tensor
    given: Tensor
    negative_rows: Tensor
    negatives_valid: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.keys)

    def other_captions(self) -> Tensor:
        """bool `[B,T]`: which of the batch's captions are of other images."""
        other = torch.ones(len(self), len(self.captions), dtype=torch.bool, device=self.caption_rows.device)
        for image, rows, valid in zip(other, self.caption_rows, self.caption_valid, strict=True):
            image[rows[valid]] = False
        return other

    def to(self, device: torch.device) -> Batch:
        """Move every tensor."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass
class StepData:
    """What one rank needs for one step: its micro-batches, and what was damaged."""

    batches: list[Batch]
    items: list[int] = field(default_factory=list)
    damaged: list[BadSample] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Images in all micro-batches."""
        return sum(len(batch) for batch in self.batches)


class Steps(Dataset[StepData]):
    """Step number -> the data of this rank in that step.

    Args:
        source: the pairs.
        config: of the run.
        rank, world: of this process.

    Raises:
        InputError: the batch does not divide among the processes, or there are no pairs.
    """

    def __init__(self, source: PairSource, config: Config, rank: int = 0, world: int = 1) -> None:
        batch = config.optimiser.batch
        if batch % world:
            raise InputError(f"a batch of {batch} does not divide among {world} processes: change one of them")
        if len(source) == 0:
            raise InputError("the data holds no pairs: check the shards and the keep-list")
        self.source, self.config, self.rank, self.world = source, config, rank, world
        self.per_epoch = -(-len(source) // batch)
        whole = config.optimiser.epochs * self.per_epoch
        self.total = min(config.optimiser.steps or whole, whole)
        asked, epochs = config.optimiser.steps, config.optimiser.epochs
        if asked > whole and rank == 0:
            log.warning(
                "optimiser.epochs=%d ends the run after %d steps, not %d: set optimiser.epochs=%d for all of them",
                *(epochs, whole, asked, -(-asked // self.per_epoch)),
            )
        self._order: tuple[int, np.ndarray] | None = None
        self._parser: TextTagger | None = None

    def __len__(self) -> int:
        """Steps of the run."""
        return self.total

    def items(self, step: int) -> tuple[int, list[int]]:
        """The epoch of a step, and which pairs this rank meets in it."""
        epoch, place = divmod(step, self.per_epoch)
        if self._order is None or self._order[0] != epoch:
            seed = self.config.run.seed
            self._order = (epoch, epoch_order(len(self.source), seed, epoch, self.rank, self.world))
        share = self.config.optimiser.batch // self.world
        return epoch, self._order[1][place * share : (place + 1) * share].tolist()

    def __getitem__(self, step: int) -> StepData:
        """Read, augment and collate."""
        epoch, items = self.items(step)
        samples, damaged = [], []
        for item in items:
            try:
                pair = self.source[item]
            except BadSample as damage:
                damaged.append(damage)
                continue
            samples.append(self.sample(pair, item, epoch))
        size = self.config.optimiser.micro_batch or max(1, len(samples))
        parts = [samples[i : i + size] for i in range(0, len(samples), size)]
        return StepData([self.collate(part, epoch) for part in parts], [s.item for s in samples], damaged)

    def sample(self, pair: Pair, item: int, epoch: int) -> PreparedPair:
        """Augment a pair and split its captions."""
        config, seed = self.config, self.config.run.seed
        numbers = list(range(len(pair.captions)))
        if config.data.captions == "one":
            numbers = [int(draws(seed, epoch, item, CAPTION).integers(len(numbers)))]
        captions = [pair.captions[n] for n in numbers]
        words = [self._words(text) for text in captions]
        given: list[set[str]] | None = None
        if config.choice.by == "given":
            if pair.tags is None:
                raise InputError(f"the pair {pair.shard}:{pair.key} has no words chosen: run ttd data tag on all pairs")
            kept = config.data.stop_words
            given = [{tag.lower() for tag in pair.tags[n] if kept or not is_stop_word(tag)} for n in numbers]
            # A language model's words need not be in the caption literally.
            words = [list(dict.fromkeys([*own, *sorted(tags)])) for own, tags in zip(words, given, strict=True)]
        elif config.choice.by == "nouns":
            given = [self._nouns(text) for text in captions]
        crop = random_crop(pair.image, config.augment, draws(seed, epoch, item, PIXELS))
        return PreparedPair(item, f"{pair.shard}:{pair.key}", crop, captions, words, given)

    def collate(self, samples: Sequence[PreparedPair], epoch: int) -> Batch:
        """Put samples together; every distinct string gets one row."""
        own = [list(dict.fromkeys(word for row in s.words for word in row)) for s in samples]
        words = list(dict.fromkeys(word for row in own for word in row))
        captions = list(dict.fromkeys(text for s in samples for text in s.captions))
        row_of = {word: i for i, word in enumerate(words)}
        caption_of = {text: i for i, text in enumerate(captions)}
        word_rows, word_valid = _padded([[row_of[w] for w in row] for row in own])
        caption_rows, caption_valid = _padded([[caption_of[t] for t in s.captions] for s in samples])
        negative_rows, negatives_valid = _padded(
            [
                self._find_negatives(s, [row_of[w] for w in row], len(words), epoch)
                for s, row in zip(samples, own, strict=True)
            ]
        )
        member = torch.zeros(*caption_rows.shape, word_rows.shape[1], dtype=torch.bool)
        given = torch.zeros(word_rows.shape, dtype=torch.bool)
        for b, sample in enumerate(samples):
            place = {word: n for n, word in enumerate(own[b])}
            for m, row in enumerate(sample.words):
                member[b, m, [place[word] for word in row]] = True
                chosen = sample.given[m] if sample.given is not None else set()
                given[b, [place[word] for word in row if word in chosen]] = True
        return Batch(
            keys=[s.key for s in samples],
            pixels=torch.from_numpy(np.stack([s.crop.pixels for s in samples])),
            rects=torch.tensor([s.crop.rect for s in samples]),
            words=words or captions[:1],  # padding needs a row to point at
            captions=captions,
            word_rows=word_rows,
            word_valid=word_valid,
            caption_rows=caption_rows,
            caption_valid=caption_valid,
            member=member,
            given=given,
            negative_rows=negative_rows,
            negatives_valid=negatives_valid,
        )

    def _find_negatives(self, sample: PreparedPair, own: list[int], words: int, epoch: int) -> list[int]:
        """Rows of words of the batch that this image's captions do not have, in a random order."""
        loss, choice = self.config.loss, self.config.choice
        compares = loss.relative or loss.floor >= 0 or choice.by == "negatives"
        compares = compares or any(term.negatives for term in find_loss_terms(loss.weights()))
        number = max(loss.negatives, loss.compared if compares else 0)
        if not number:
            return []
        others = np.setdiff1d(np.arange(words), own)
        draw = draws(self.config.run.seed, epoch, sample.item, NEGATIVES)
        return [int(row) for row in draw.permutation(others)[:number]]

    def _words(self, caption: str) -> list[str]:
        data = self.config.data
        return distinct(word.text for word in split_words(caption, not data.stop_words, tokenised=data.tokenised))[0]

    def _nouns(self, text: str) -> set[str]:
        if self._parser is None:
            self._parser = open_nouns(self.config.choice.parser)
        words = split_words(text, tokenised=self.config.data.tokenised)
        caption = Caption(text, tuple(word.text for word in words))
        chosen = self._parser.choose([caption])[0]
        return set(chosen.words(caption)) if chosen else set()


def load_steps(steps: Steps, start: int) -> Iterator[StepData]:
    """The data of the steps from `start` on, prepared ahead by the workers that the config asks for."""
    workers = steps.config.data.workers
    loader: DataLoader[StepData] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, len(steps)),
        num_workers=workers,
        worker_init_fn=_quiet_worker if workers else None,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
    )
    try:
        yield from loader
    except (RuntimeError, EOFError, ConnectionError) as error:
        # The last two: it was ended while it handed a batch over.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise OutOfMemory(
            f"a process that reads the data was ended by the system ({' '.join(str(error).split())[:150]}), most often "
            "because memory, or shared memory (/dev/shm), was full: set data.workers lower and run the command again"
        ) from error


def _quiet_worker(number: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main process decides when workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Lists of numbers -> int64 `[B,N]` filled with 0, and bool `[B,N]`; N is at least 1."""
    longest = max(1, *(len(row) for row in rows))
    filled = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    valid = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
    return filled, valid
