"""What a job would take, measured on a part of it before it is started: `--dry-run`, and images in many windows."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ttd.data.bad_samples import BadSample
from ttd.data.shard_jobs import ShardJob, ShardNotes
from ttd.data.sources import PairSource
from ttd.encoders.base import Encoder
from ttd.errors import InputError, TTDError
from ttd.inference.options import Options
from ttd.inference.views import encoding_time

SECONDS = 10.0  # of measuring
LONG = 20.0  # seconds of encoding from which the time is estimated first


@dataclass(frozen=True)
class Estimate:
    """A job that was not started.

    Attributes:
        pairs, files: of all.
        measured, damaged: pairs that were tried, and how many of them are damaged.
        seconds: that the tried ones took, reading and the model's work at once.
        size: bytes of the tables of all pairs, as the tried ones compress.
        processes: among which the shards would be shared.
    """

    pairs: int
    files: int
    measured: int
    damaged: int
    seconds: float
    size: int
    processes: int = 1

    @property
    def rate(self) -> float:
        """Pairs a second of one process."""
        return self.measured / self.seconds

    @property
    def whole(self) -> float:
        """Seconds for all pairs, by all processes at this rate."""
        return self.pairs / self.rate / self.processes

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "pairs_per_second": self.rate, "whole_seconds": self.whole}

    def __str__(self) -> str:
        by = f" by {self.processes} processes as fast as this one" if self.processes > 1 else ""
        bad = f", {self.damaged:,} of them damaged" if self.damaged else ""
        return (
            f"data: {self.pairs:,} pairs in {self.files:,} files\n"
            f"rate: {self.rate:,.1f} pairs a second, measured on {self.measured:,}{bad} ({os.cpu_count()} processors)\n"
            f"time: {duration(self.whole)} for all{by}\n"
            f"disk: about {megabytes(self.size)} of tables"
        )


def estimate(
    job: ShardJob, source: PairSource, batch: int, *, processes: int = 1, seconds: float = SECONDS
) -> Estimate:
    """Do the job for some pairs, spread over all, and write nothing.

    Args:
        job: what is done.
        source: the pairs.
        batch: pairs at once; the first batch warms up and does not count where there are more.
        processes: that would share the work.
        seconds: about how long to measure.

    Raises:
        InputError: there is no pair.
    """
    if not len(source):
        raise InputError("there are no pairs to measure: check the sources")
    draw, every = random.Random(0), range(len(source))  # of a range a few are drawn without the others
    taken = draw.sample(every, min(batch, len(every)))
    spent, table, damaged = _timed(job, source, taken)
    if len(every) > batch:
        wanted = max(1, round(batch / max(spent, 1e-3) * seconds / batch)) * batch
        warm = set(taken)
        drawn = draw.sample(every, min(wanted + batch, len(every)))
        taken = [index for index in drawn if index not in warm][:wanted]
        spent, table, damaged = _timed(job, source, taken)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    size = round(sink.tell() / len(taken) * len(source))
    return Estimate(len(source), len(source.shards), len(taken), damaged, spent, size, processes)


def _timed(job: ShardJob, source: PairSource, indices: list[int]) -> tuple[float, pa.Table, int]:
    damaged: list[BadSample] = []
    start = time.perf_counter()
    table = job.table(source, sorted(indices), ShardNotes(damaged.append))
    return time.perf_counter() - start, table, len(damaged)


def encoding_line(encoder: Encoder, shape: tuple[int, int], options: Options, images: int) -> str | None:
    """How long it takes to encode images in many windows, said before it is begun; None where it is soon done.

    Args:
        encoder: in evaluation mode.
        shape: (H, W) of one of them, in pixels; the others count as alike.
        options: how they are looked at.
        images: how many.
    """
    try:
        windows, seconds = encoding_time(shape, encoder, options)
    except TTDError:  # of an image that cannot be encoded the answer says why
        return None
    if seconds * images < LONG:
        return None
    scales = " + ".join(map(str, windows))
    each = f"An image of {shape[1]} x {shape[0]} pixels is encoded in {sum(windows)} windows"
    each += f" ({scales} in its scales{', half of them mirrored' if options.flip else ''})" if len(windows) > 1 else ""
    several = f", {duration(seconds * images)} for {images:,} images" if images > 1 else ""
    return f"{each}: about {duration(seconds)}{several}, by the time of one window."


def duration(seconds: float) -> str:
    """Seconds as people say them: "3 d 4 h", "2 h 10 min", "5 min 3 s", "12 s"."""
    whole = max(1, round(seconds))
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, size), (smaller, part) in pairwise(units):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def megabytes(size: float) -> str:
    """Bytes as people say them: "310 MB", "1.2 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"
