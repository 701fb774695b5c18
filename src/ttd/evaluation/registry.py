"""Benchmarks by name: an entry of `ttd.registry.DATASETS`, and its options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark
from ttd.registry import DATASETS, SCORES


@dataclass(frozen=True)
class Choices:
    """What a user may choose about a benchmark.

    Attributes:
        protocol: of `ttd.inference.protocols.PROTOCOLS`.
        given: single options for the model's methods that overrule the protocol.
        classes: another class list.
        synonyms: ask for all names of a class.
        label_orientation: of `ttd.evaluation.datasets.labels.ORIENTATIONS`.
        known_classes: label maps: ask each image only for the classes that are in it.
        taggers, spacy_model, llm: see `ttd.taggers.open_tagger`.
        parts, scores, stop_words, shuffled: see `ttd.evaluation.tasks.tagmask.TagMask`.
        rules: tagmask: rows of s_pixel by these rules of selection.
        percentiles, negatives: tagmask: rows of the rule "negatives", and where its words come from: captions, list
            or a file; None: captions where they hold enough words.
        split, split_by: see `ttd.evaluation.datasets.refcoco.read_refer`; coco-80 has a split too.
    """

    protocol: str = "paper"
    given: Mapping[str, Any] | None = None
    classes: str | None = None
    synonyms: bool = False
    label_orientation: str = "upright"
    known_classes: bool = False
    parts: Sequence[str] = ("tags", "masks")
    scores: Sequence[str] = SCORES
    stop_words: bool = False
    shuffled: bool = True
    taggers: Sequence[str] = ()
    spacy_model: str | None = None
    llm: Mapping[str, Any] | None = None
    rules: Sequence[str] = ()
    percentiles: Sequence[float] = ()
    negatives: str | None = None
    split: str | None = None
    split_by: str | None = None


@dataclass(frozen=True)
class BenchmarkEntry(ABC):
    """A data set that `ttd eval` knows by name; `DATASETS.add(name, entry, ...)` makes it known.

    Attributes:
        name: on the command line.
        title: for people.
        choices: the fields of `Choices` that it takes beside `protocol` and how an image is looked at; the command line
            refuses the others. "parts" means all options of tagmask, "masks" for background and refinement,
            "labels" for the softmax over all texts and its cuts.
    """

    name: str
    title: str

    choices: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> Benchmark:
        """See `open_benchmark`."""

    def whole(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """How many images the whole set has (several numbers: versions of it); nothing where that is not known.

        Args:
            settings: of the benchmark, which may say which of several splits it is.
        """
        return ()


def open_benchmark(name: str, root: Path, choices: Choices, encoder: Encoder | None = None) -> Benchmark:
    """A benchmark, ready to run.

    Args:
        name: of a registered data set.
        root: the folder of the data.
        choices: of the user.
        encoder: of the model that is asked, which may have thresholds of its own; None: not loaded yet.

    Raises:
        InputError: unknown name or protocol, or the data is not there.
    """
    entry: BenchmarkEntry = DATASETS.find(name)
    for split in ("split", "split_by"):
        if getattr(choices, split) and split not in entry.choices:
            raise InputError(f"{name} offers no such choice of splits: leave --split and --split-by out")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: --data must be the one that holds the data set")
    return entry.open(root, choices, encoder)


def is_whole(name: str, count: int, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether so many images are a whole validation set; sets without a known size always are.

    Args:
        name: of a benchmark.
        count: of images.
        settings: the benchmark's `settings()`.
    """
    whole = _whole(name, settings)
    return not whole or count in whole


def sample_note(name: str, measured: int, settings: Mapping[str, Any] | None = None) -> str | None:
    """A sentence where fewer images were measured than the data set has: such numbers compare with nothing."""
    if is_whole(name, measured, settings):
        return None
    whole = " or ".join(str(count) for count in _whole(name, settings))
    return f"Measured on a sample, {measured} of {whole} images; published numbers are about the whole set."


def _whole(name: str, settings: Mapping[str, Any] | None) -> tuple[int, ...]:
    if name not in DATASETS.names():  # a data set of a package that is not there any more
        return ()
    entry: BenchmarkEntry = DATASETS.find(name)
    return entry.whole(settings or {})
