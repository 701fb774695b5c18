"""Runs a benchmark: streams over its items, keeps every measurement, skips what cannot be used, adds up.

Process r of w measures every w-th item and appends to a file of its own; it never talks to the others, so
they may run on many machines over one folder. Whatever was measured before counts, by however many processes.
Each notes in a file that it has ended and what it skipped; the one that finds all these notes takes them away
and adds up, so exactly one does, and none waits for another that may have died."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from ttd.documents import parse_json, read_json, refused
from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark, Record, Result, Tally
from ttd.files import whole_file
from ttd.schema import Schema, any_text, anything, each, entries, fields

if TYPE_CHECKING:
    from ttd.model import TTD

Skipped = tuple[str, str]  # id and reason
_NOTE = each(entries(any_text, any_text))
_LINE = fields({"id": any_text})
_AGAIN = "remove the file, and its items are measured again"


def share_name(rank: int = 0, world: int = 1) -> str:
    """The file of one process among `world`."""
    return "measurements.jsonl" if world == 1 else f"measurements.{rank}-of-{world}.jsonl"


class Shares:
    """All measurements in a folder, and this process's part in making them.

    Args:
        folder: the run's.
        rank, world: which of how many processes this is.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.folder, self.rank, self.world = folder, rank, world

    def begin(self, ids: Sequence[str]) -> tuple[list[int], int]:
        """The numbers of this process's items that nobody has measured yet, and how many items are its own."""
        self._note(self.rank).unlink(missing_ok=True)
        known = self._places()
        mine = range(self.rank, len(ids), self.world)
        return [number for number in mine if ids[number] not in known], len(mine)

    def end(self, ids: Sequence[str], skipped: Sequence[Skipped]) -> list[Skipped] | None:
        """Notes that this process has done its part, having skipped `skipped`.

        Returns:
            what all of them skipped, in the order of `ids`; None where another is still at work or adds up.

        Raises:
            InputError: measurements of this process's items are gone.
        """
        known, passed = self._places(), {name for name, _ in skipped}
        if gone := [name for name in ids[self.rank :: self.world] if name not in known and name not in passed]:
            raise InputError(
                f"{self.folder} has lost measurements while this was at work ({len(gone)} items, first {gone[0]}): "
                "run the same command again"
            )
        with whole_file(self._note(self.rank)) as part:
            part.write_text(json.dumps(skipped), "utf-8")
        notes = [self._note(rank) for rank in range(self.world)]
        try:
            found = [read_json(note, _NOTE, remedy="remove it, and run the command again") for note in notes]
        except InputError:
            if all(note.exists() for note in notes):
                raise
            return None
        reasons = {name: reason for note in found for name, reason in note}
        known = self._places()
        if any(name not in known and name not in reasons for name in ids):
            return None  # the note of an earlier, killed run: its process has only just started again
        try:
            notes[0].unlink()  # which only one process can
        except FileNotFoundError:
            return None
        for note in notes[1:]:
            note.unlink(missing_ok=True)
        return [(name, reasons[name]) for name in ids if name in reasons and name not in known]

    def records(self, ids: Iterable[str], check: Schema = anything) -> Iterator[dict[str, Any]]:
        """The measurements of `ids`, in their order, whatever the files' order: a sum of shares depends on it.

        Raises:
            InputError: a line is damaged, or `check` raises `Misfit` for it.
        """
        places = self._places()
        streams = {path: path.open("rb") for path in {path for path, _ in places.values()}}
        try:
            for name in ids:
                if name in places:
                    path, start = places[name]
                    streams[path].seek(start)
                    with refused(f"{path}, the measurement of {name}", _AGAIN):
                        record = parse_json(streams[path].readline(), _LINE)
                        check(record)
                    yield record
        finally:
            for stream in streams.values():
                stream.close()

    def _places(self) -> dict[str, tuple[Path, int]]:
        """File and offset of each item's line; a last line that is being written does not count."""
        places: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("measurements*.jsonl")):
            start = 0
            with path.open("rb") as stream:
                for line in stream:
                    if line.endswith(b"\n"):
                        places.setdefault(_id(line, path), (path, start))
                    start += len(line)
        return places

    def _note(self, rank: int) -> Path:
        return self.folder / f"ended.{rank}-of-{self.world}.json"


def _id(line: bytes, path: Path) -> str:
    with refused(f"a line of {path}", _AGAIN):
        return str(parse_json(line, _LINE)["id"])


PREPARED = 64  # items that a benchmark may prepare together


class Store(Protocol):
    """Keeps measurements on disk as they are made; `ttd.results_file.ResultsFile` is one."""

    path: Path

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line."""

    def close(self) -> None:
        """Nothing will be added any more."""


@dataclass(frozen=True)
class Measurements:
    """What was measured of a benchmark's items, in memory.

    Attributes:
        benchmark: what was asked.
        records: one for each item, in order, each with its "id".
    """

    benchmark: Benchmark
    records: Sequence[Record]

    def result(self, keep: Callable[[Record], bool] = lambda record: True) -> Result:
        """The numbers over the records that `keep` chooses."""
        tally = self.benchmark.tally()
        for record in filter(keep, self.records):
            tally.add(record)
        return tally.result()


def measure_all(model: TTD, benchmark: Benchmark) -> Measurements:
    """Measure every item of a small set, without files.

    Raises:
        InputError: an item cannot be used.
    """
    model, records = model.repeatable(), []
    for number, sample in enumerate(tqdm(benchmark.samples, benchmark.name, disable=None, file=sys.stderr)):
        if number % PREPARED == 0:
            benchmark.prepare(range(number, min(number + PREPARED, len(benchmark.samples))))
        records.append({"id": sample.id, **benchmark.measure(model, number)})
    return Measurements(benchmark, records)


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
        rank, world: which of how many processes this is, see `ttd.evaluation.runner`.

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
    for record in shares.records(ids, benchmark.check):
        add(tally, record, store.path.parent)
        measured += 1
    if not measured:
        reason = f" (the first: {every[0][0]}: {every[0][1]})" if every else ""
        raise InputError(f"None of the {len(samples)} items of {benchmark.root} could be used{reason}.")
    return Outcome(tally.result(), len(samples), measured, every)


def add(tally: Tally, record: dict[str, Any], folder: Path) -> None:
    """Adds a measurement that was read from `folder`; raises `InputError` where it contradicts the data."""
    try:
        tally.add(record)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: the measurement of {record['id']} does not fit the data ({type(error).__name__}): {_AGAIN}"
        ) from error


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
