"""Work through shards, one Parquet file for each: continues where it stopped, shared among ranks.

A file appears whole or not at all, so a shard is done when its file is there. Rank r of w takes every w-th
shard and never talks to the others, so ranks may run on many machines over one folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from ttd.data.bad_samples import REASONS, BadSample, BadSampleReport
from ttd.data.shard import Shard
from ttd.data.sources import PairSource
from ttd.data.tables import read_about, write_table
from ttd.errors import InputError
from ttd.files import check_there
from ttd.files.schema import any_text, count, each, fields, mapping, one_of
from ttd.runs import ALONE, Executor, differences, read_ahead

T = TypeVar("T")

_DAMAGE = fields({"reason": one_of(*REASONS), "key": any_text, "detail": any_text})
_ABOUT = fields(
    {"settings": mapping(), "size": count, "pairs": count, "damage": each(_DAMAGE)},
    {"counts": mapping(count), "unknown": mapping(count)},
)


@dataclass
class ShardNotes:
    """What a job notes while it works on a shard.

    Attributes:
        skip: takes the damaged pairs.
        progress: may be called with a number of pairs that are done, before the shard is.
        counts: what is not damage but is reported: "truncated_captions", longer than the model takes, and
            "unspaced_captions", whose words are written without spaces.
        unknown: how often each word came that lies outside the vocabulary of a small model.
    """

    skip: Callable[[BadSample], None]
    progress: Callable[[int], None] = lambda pairs: None
    counts: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)


class ShardJob(ABC):
    """What is done with the pairs of one shard.

    Attributes:
        settings: what decides the results, in plain values; files made with others are refused.
    """

    settings: dict[str, Any]

    @abstractmethod
    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """The rows of the pairs `indices` of `source`; damaged ones go to `notes.skip` and give none."""


class LateJob(ShardJob):
    """A job that each process makes when its first shard comes; where none comes, its settings come from the shards.

    Args:
        make: the job, wherever it is called.
    """

    def __init__(self, make: Callable[[], ShardJob]) -> None:
        self._make = make
        self._made: ShardJob | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "settings":
            return self._job().settings
        raise AttributeError(name)

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        """See `ShardJob`."""
        return self._job().table(source, indices, notes)

    def _job(self) -> ShardJob:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {"_make": self._make, "_made": None}


def usable_batches(
    read: Callable[[int], T], indices: Sequence[int], size: int, threads: int, notes: ShardNotes
) -> Iterator[list[T]]:
    """What was read of the pairs `indices`, in order, batch by batch, while the next ones are read.

    Args:
        read: reads one pair.
        indices: of the pairs.
        size: of a batch; damaged pairs make it smaller.
        threads: that read.
        notes: takes the damaged pairs, and hears how many pairs are done.
    """
    for batch in read_ahead(read, indices, size, threads, BadSample):
        usable: list[T] = []
        for one in batch:
            if isinstance(one, BadSample):
                notes.skip(one)
            else:
                usable.append(one)
        if usable:
            yield usable
        notes.progress(len(batch))


def run_shards(
    job: ShardJob,
    source: PairSource,
    folder: Path,
    *,
    limit: float = 0.1,
    executor: Executor = ALONE,
    progress: Callable[[int], None] = lambda pairs: None,
) -> BadSampleReport:
    """Do this process's shards that are not done yet.

    Args:
        job: what is done.
        source: the pairs; only those of its keep-list, where it has one.
        folder: gets one file per shard, `FOLDER/NAME.parquet`.
        limit: share of damaged pairs, or shards, above which the job stops.
        executor: where shards are done, and which are this process's.
        progress: receives the number of pairs that are done.

    Returns:
        the damage in this process's shards, also in those that were done before.

    Raises:
        InputError: a file was made with other settings; too much is damaged; finished files are gone.
    """
    mine = executor.mine(len(source.shards))
    report = BadSampleReport(sum(len(source.indices(number)) for number in mine), len(mine), limit)
    work = _ShardWork(job, source, folder, report, progress)
    for number, (about, untold) in executor.map(work, range(len(source.shards))):
        if isinstance(job, LateJob):
            job.settings = about["settings"]
        _count(about, source.shards[number], report)
        progress(untold)
    check_there(table_path(folder, source.shards[number]) for number in mine)
    return report


def whole_report(job: ShardJob, source: PairSource, folder: Path, limit: float) -> BadSampleReport | None:
    """The damage in all shards, None while some are not done."""
    report = BadSampleReport(len(source), len(source.shards), limit)
    for shard in source.shards:
        about = _done(job, shard, folder)
        if about is None:
            return None
        _count(about, shard, report)
    return report


def table_path(folder: Path, shard: Shard) -> Path:
    """Where a shard's table lies."""
    return folder / f"{shard.name}.parquet"


class _ShardWork:
    """One shard's table, made where it is not there. In another process only what is returned is heard of."""

    def __init__(
        self,
        job: ShardJob,
        source: PairSource,
        folder: Path,
        report: BadSampleReport,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._job, self._source, self._folder = job, source, folder.absolute()
        self._report, self._progress = report, progress

    def __call__(self, number: int) -> tuple[dict[str, Any], int]:
        """What the shard's table says of itself, and of how many pairs progress was not told yet."""
        shard, indices = self._source.shards[number], self._source.indices(number)
        about, untold = _done(self._job, shard, self._folder), len(indices)
        if about is not None:
            return about, untold
        damaged: list[BadSample] = []

        def skip(damage: BadSample) -> None:
            damaged.append(damage)
            self._report.add(damage)

        def done(pairs: int) -> None:
            nonlocal untold
            if self._progress is not None:
                untold -= pairs
                self._progress(pairs)

        if shard.damage:
            skip(shard.damage)
        notes = ShardNotes(skip, done)
        table = self._job.table(self._source, indices, notes)
        about = {
            "settings": self._job.settings,
            "size": shard.size,
            "pairs": len(shard),
            "damage": [damage.to_dict() for damage in damaged],
            "counts": dict(notes.counts),
            "unknown": dict(notes.unknown),
        }
        write_table(table, table_path(self._folder, shard), about)
        return about, untold

    def __getstate__(self) -> dict[str, Any]:
        empty = BadSampleReport(self._report.total, self._report.shards, self._report.limit)
        return {**vars(self), "_report": empty, "_progress": None}


def _done(job: ShardJob, shard: Shard, folder: Path) -> dict[str, Any] | None:
    """What the shard's file says of itself; None where there is none, or the shard has changed since."""
    path = table_path(folder, shard)
    about = read_about(path, _ABOUT)
    if about is None or (about.get("size"), about.get("pairs")) != (shard.size, len(shard)):
        return None
    if other := differences(about["settings"], job.settings):
        raise InputError(f"{path} was made with other settings ({other}): choose another --out or remove it")
    return about


def _count(about: dict[str, Any], shard: Shard, report: BadSampleReport) -> None:
    report.count(about.get("counts", {}), about.get("unknown", {}))
    for damage in about["damage"]:
        report.add(BadSample(damage["reason"], shard.name, damage["key"], damage["detail"]))
