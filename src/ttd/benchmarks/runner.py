"""Runs a benchmark: streams over its items, keeps every measurement, skips what cannot be used, adds up."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from ttd.atomic import whole_file
from ttd.benchmarks.benchmark import Benchmark, Result
from ttd.benchmarks.shares import Shares, Skipped
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.model import TTD

PREPARED = 64  # items that a benchmark may prepare together


class Store(Protocol):
    """Keeps measurements on disk as they are made; `ttd.cli.results_file.ResultsFile` is one."""

    path: Path

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line."""

    def close(self) -> None:
        """Nothing will be added any more."""


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        result: over the items that could be used.
        items: how many the benchmark has.
        measured: how many of them count in the result.
        skipped: id and reason of the others.
    """

    result: Result
    items: int
    measured: int
    skipped: list[Skipped]


def run(
    model: TTD, benchmark: Benchmark, store: Store, limit: int | None = None, *, rank: int = 0, world: int = 1
) -> Outcome | None:
    """Measures this process's items that no process has measured yet, then adds up all measurements.

    Args:
        model: what is asked.
        benchmark: what it is asked about.
        store: from an earlier, interrupted run with the same settings, or empty; its folder holds the others'.
        limit: only this many items, the first ones.
        rank, world: which of how many processes this is, see `ttd.benchmarks.shares`.

    Returns:
        the end of the run; None where another process is still at work: the one that ends last adds up.

    Raises:
        InputError: no item could be used.
    """
    samples = benchmark.samples[:limit]
    ids = [sample.id for sample in samples]
    shares = Shares(store.path.parent, rank, world)
    left, mine = shares.begin(ids)
    skipped: list[Skipped] = []
    model = model.repeatable()  # else the last digits would depend on which items this process was asked before
    with tqdm(
        total=mine, initial=mine - len(left), desc=benchmark.name, disable=True if rank else None, file=sys.stderr
    ) as bar:
        for place, number in enumerate(left):
            if place % PREPARED == 0:
                benchmark.prepare(left[place : place + PREPARED])
            try:
                record = benchmark.measure(model, number)
            except InputError as error:
                skipped.append((ids[number], str(error)))
            else:
                store.append({"id": ids[number], **record})
            bar.update()
    store.close()
    every = shares.end(ids, skipped)
    if every is None:
        return None
    tally, measured = benchmark.tally(), 0
    for record in shares.records(ids):
        tally.add(record)
        measured += 1
    if not measured:
        reason = f" (the first: {every[0][0]}: {every[0][1]})" if every else ""
        raise InputError(f"None of the {len(samples)} items of {benchmark.root} could be used{reason}.")
    return Outcome(tally.result(), len(samples), measured, every)


def write_outcome(folder: Path, outcome: Outcome, facts: dict[str, Any]) -> None:
    """Writes `results.json` (numbers, and `facts`: settings, versions ...) and one CSV file per table."""
    result = outcome.result
    for name, rows in result.rows.items():
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
        _write(folder / f"{name}.csv", stream.getvalue())
    content = {
        **facts,
        "items": outcome.items,
        "measured": outcome.measured,
        "skipped": [{"id": name, "reason": reason} for name, reason in outcome.skipped],
        "numbers": {name: _finite(value) for name, value in result.numbers.items()},
        "notes": list(result.notes),
    }
    _write(folder / "results.json", json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n")


def _cell(value: Any) -> Any:
    """Empty where there is no number."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, "utf-8")
