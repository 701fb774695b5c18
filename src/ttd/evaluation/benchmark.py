"""A benchmark: items, a measurement of one item as plain JSON, and a tally of all measurements.

A measurement holds integers (and scores), so it can be kept per item: a run that was killed goes on where it
stopped, and any order or split of the items gives the same numbers.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttd.evaluation.bootstrap import Statistic
    from ttd.evaluation.report.panels import ItemPanels
    from ttd.inference.options import Options
    from ttd.model import TTD

Record = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One item of a benchmark.

    Attributes:
        id: unique in the benchmark.
        image: the image's file.
        truth: files that hold the truth; where one is missing, measuring says so.
    """

    id: str
    image: Path
    truth: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes:
        numbers: measures by name; shares in 0..1, NaN where there is nothing to divide by.
        rows: tables by name, each a list of rows (dictionaries with the same keys), for CSV files.
        notes: sentences about what the numbers do not say.
    """

    numbers: dict[str, float]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Tally(ABC):
    """Adds up measurements as they come; memory does not grow with the number of images' pixels."""

    @abstractmethod
    def add(self, record: Record) -> None:
        """One item's measurement."""

    @abstractmethod
    def result(self) -> Result:
        """The numbers over all that was added."""


class Benchmark(ABC):
    """A data set with a protocol.

    Attributes:
        name: as on the command line, e.g. "voc".
        root: the folder of the data.
        options: how the model is asked, by task, as they are saved beside the result.
    """

    name: str
    root: Path
    options: dict[str, Options]

    @property
    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """All items, in a fixed order."""

    @property
    def asked(self) -> Sequence[str]:
        """Those of `options` that are measured."""
        return tuple(self.options)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Settings that affect the result, besides the model and the data."""

    def check(self, record: Record) -> None:  # noqa: B027 (what a benchmark of another package writes is its own)
        """Raises `ttd.files.schema.Misfit` where a record from a file is not of the form that `measure` gives."""

    def prepare(self, numbers: Sequence[int]) -> None:  # noqa: B027 (most need none)
        """Told which samples are measured next; for what is faster for many at once."""

    @abstractmethod
    def measure(self, model: TTD, number: int) -> Record:
        """Asks the model about `samples[number]`; raises `InputError` where the item cannot be used."""

    @abstractmethod
    def tally(self) -> Tally:
        """An empty tally."""

    def quality(self, record: Record) -> dict[str, float]:
        """How well one item went, by measure (higher is better, NaN: undefined); none: it shows no images."""
        return {}

    def resampler(self, records: Iterable[Record]) -> Statistic | None:
        """The measures by which models are compared, of the records drawn again with `ttd.evaluation.bootstrap`.

        Their names are those of `Result.numbers`. None: this benchmark compares none.
        """
        return None

    def show(self, model: TTD, number: int, record: Record) -> ItemPanels:
        """Images of `samples[number]` for a page; `record` is what `measure` gave. Only where `quality` gives any."""
        raise NotImplementedError(f"{self.name} shows no images")

    def fingerprint(self) -> str:
        """sha256 over the ids and the names and sizes of all files, in order; their content is not read."""
        digest = hashlib.sha256()
        for sample in self.samples:
            sizes = [str(path.stat().st_size) if path.is_file() else "-" for path in (sample.image, *sample.truth)]
            names = [path.name for path in (sample.image, *sample.truth)]
            digest.update("\t".join([sample.id, *names, *sizes]).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()
