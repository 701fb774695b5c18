"""Runs a benchmark: streams over its items, keeps every measurement, skips what cannot be used, adds up."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from ttd.atomic import whole_file
from ttd.benchmarks.benchmark import Benchmark, Record, Result
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.model import TTD


class Store(Protocol):
    """Keeps measurements on disk as they are made; `ttd.cli.results_file.ResultsFile` is one."""

    path: Path
    done: set[str]

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line."""


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
    skipped: list[tuple[str, str]]


def run(model: TTD, benchmark: Benchmark, store: Store, limit: int | None = None) -> Outcome:
    """Measures the items that `store` does not hold yet, then adds up all that it holds.

    Args:
        model: what is asked.
        benchmark: what it is asked about.
        store: from an earlier, interrupted run with the same settings, or empty.
        limit: only this many items, the first ones.

    Raises:
        InputError: no item could be used.
    """
    samples = benchmark.samples[:limit]
    skipped: list[tuple[str, str]] = []
    left = [number for number, sample in enumerate(samples) if sample.id not in store.done]
    with tqdm(
        total=len(samples), initial=len(samples) - len(left), desc=benchmark.name, disable=None, file=sys.stderr
    ) as bar:
        for number in left:
            name = samples[number].id
            try:
                record = benchmark.measure(model, number)
            except InputError as error:
                skipped.append((name, str(error)))
            else:
                store.append({"id": name, **record})
            bar.update()
    wanted = {sample.id for sample in samples}
    tally, measured = benchmark.tally(), 0
    for record in records(store.path):
        if record["id"] in wanted:
            tally.add(record)
            measured += 1
    if not measured:
        reason = f" (the first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise InputError(f"None of the {len(samples)} items of {benchmark.root} could be used{reason}.")
    return Outcome(tally.result(), len(samples), measured, skipped)


def records(path: Path) -> Iterator[Record]:
    """The measurements of a store, one line at a time."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


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
