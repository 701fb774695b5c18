"""Runs a benchmark into a folder: streams over its items, keeps every measurement, skips what cannot be used, adds up.

Several processes may share a run, see `ttd.runs.results_file.RunRecords`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ttd.data.estimate import encoding_line
from ttd.errors import InputError, TTDError
from ttd.evaluation.benchmark import Benchmark, Record, Result, Tally
from ttd.evaluation.registry import Choices, sample_note
from ttd.evaluation.report.finished_run import FinishedRun, read_run
from ttd.evaluation.tasks.tag_tables import plot_sweep
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.schema import mapping
from ttd.images import read_image
from ttd.runs import ALONE, Executor, Prepared, Skipped, each_item
from ttd.runs.results_file import REMEASURE, ResultsFile, RunRecords

if TYPE_CHECKING:
    from ttd.evaluation.benchmark import Benchmark
    from ttd.model import TTD


PREPARED = 64  # items that a benchmark may prepare together
SENT = 16  # items of a unit that another process measures


Opening = Callable[[], "tuple[TTD, Benchmark]"]  # what another process opens for itself


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
    numbers, records = range(len(benchmark.samples)), list[Record]()
    found = _measured(model, benchmark, numbers)
    for number, record in tqdm(found, benchmark.name, len(numbers), disable=None, file=sys.stderr):
        if isinstance(record, InputError):
            raise record
        records.append({"id": benchmark.samples[number].id, **record})
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
    model: TTD,
    benchmark: Benchmark,
    store: ResultsFile,
    limit: int | None = None,
    *,
    executor: Executor = ALONE,
    elsewhere: Opening | None = None,
) -> Outcome | None:
    """Measures this process's items that no process has measured yet, then adds up all measurements.

    Args:
        model: what is asked.
        benchmark: what it is asked about.
        store: from an earlier, interrupted run with the same settings, or empty; its folder holds the others'.
        limit: only this many items, the first ones.
        executor: which of how many processes this is; or where other processes measure, with `elsewhere`.
        elsewhere: opens model and benchmark there; None: this process measures.

    Returns:
        the end of the run; None where another process is still at work: the one that ends last adds up.

    Raises:
        InputError: no item could be used.
    """
    ids = [sample.id for sample in benchmark.samples[:limit]]
    ranks = executor.ranks
    records = RunRecords(store.path.parent, ranks)
    left, mine = records.left(ids)
    skipped: list[Skipped] = []
    if left and not ranks.rank and elsewhere is None:
        _say_time(model, benchmark, left)
    with tqdm(
        total=mine, initial=mine - len(left), desc=benchmark.name, disable=True if ranks.rank else None, file=sys.stderr
    ) as bar:
        measured_now = (
            _measured(model, benchmark, left) if elsewhere is None else _measured_elsewhere(executor, elsewhere, left)
        )
        for number, found in measured_now:
            if isinstance(found, InputError):
                skipped.append((ids[number], str(found)))
            else:
                store.append({"id": ids[number], **found})
            bar.update()
    store.close()
    every = records.end(ids, skipped)
    if every is None:
        return None
    tally, measured = benchmark.tally(), 0
    for record in records.records(ids, benchmark.check):
        add(tally, record, store.path.parent)
        measured += 1
    if not measured:
        reason = f" (the first: {every[0][0]}: {every[0][1]})" if every else ""
        raise InputError(f"None of the {len(ids)} items of {benchmark.root} could be used{reason}.")
    return Outcome(tally.result(), len(ids), measured, every)


def _say_time(model: TTD, benchmark: Benchmark, numbers: Sequence[int]) -> None:
    """One line on stderr where it takes long to encode the images, by the first of them."""
    try:
        image = read_image(benchmark.samples[numbers[0]].image)
    except InputError:  # skipped and named in its turn
        return
    for task in benchmark.asked:
        shape = (image.height, image.width)
        if line := encoding_line(model.encoder, shape, benchmark.options[task], len(numbers)):
            print(f"{benchmark.name}, {task}: {line}", file=sys.stderr)


def _measured(model: TTD, benchmark: Benchmark, numbers: Sequence[int]) -> Iterator[tuple[int, Record | InputError]]:
    """The measurement of each sample, or why it cannot be used."""
    # Else the last digits would depend on which items this process was asked about before.
    model = model.repeatable()

    def measure(batch: Sequence[int], _: Sequence[int]) -> Iterator[Record | InputError]:
        benchmark.prepare(batch)
        for number in batch:
            try:
                yield benchmark.measure(model, number)
            except InputError as error:
                yield error

    return each_item(numbers, int, measure, PREPARED, InputError)


def _measured_elsewhere(
    executor: Executor, elsewhere: Opening, numbers: Sequence[int]
) -> Iterator[tuple[int, Record | InputError]]:
    """As `_measured`, as units are done."""

    def prepare() -> Callable[[Sequence[int]], list[tuple[int, Record | InputError]]]:
        model, benchmark = elsewhere()
        return lambda unit: list(_measured(model, benchmark, unit))

    units = [numbers[start : start + SENT] for start in range(0, len(numbers), SENT)]
    for _, found in executor.map(Prepared(prepare), units):
        yield from found


def add(tally: Tally, record: dict[str, Any], folder: Path) -> None:
    """Adds a measurement that was read from `folder`; raises `InputError` where it contradicts the data."""
    try:
        tally.add(record)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: the record of {record['id']} does not fit the data ({type(error).__name__}): {REMEASURE}"
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
    write_file(path, text)


def measure_into(
    folder: Path,
    benchmark: Benchmark,
    model: TTD,
    named: Mapping[str, Any],
    protocol: str,
    *,
    choices: Choices | None = None,
    limit: int | None = None,
    executor: Executor = ALONE,
    elsewhere: Opening | None = None,
) -> FinishedRun | None:
    """Measures what is not measured yet, and writes `results.json`, tables and the plot of all thresholds.

    Args:
        folder: of the run; what is there must have been measured with the same settings.
        benchmark, model: what is asked, and who.
        named: how the model was named: "name", "adapter", "method" and what else decides its answers.
        protocol: its name.
        choices: of the user, so that the run can be opened again; None: it is not.
        limit: only so many items, the first ones.
        executor, elsewhere: as for `run`.

    Returns:
        the run; None where another process is still at work, and will write it.

    Raises:
        MissingExtra: a package for the refinement is not installed; before anything is encoded.
    """
    for options in benchmark.options.values():
        model.check_refinement(options)
    settings = {
        "benchmark": benchmark.name,
        "data": {"root": str(benchmark.root.resolve()), "fingerprint": benchmark.fingerprint()},
        "model": {"fingerprint": model.encoder.fingerprint(), "encoder": model.encoder.settings(), **named},
        "protocol": protocol,
        "options": {task: asdict(options) for task, options in benchmark.options.items()},
        "task": benchmark.settings(),
    }
    with RunRecords(folder, executor.ranks).open(settings) as store:
        outcome = run(model, benchmark, store, limit, executor=executor, elsewhere=elsewhere)
    if outcome is None:
        return None
    notes = [sample_note(benchmark.name, outcome.measured, benchmark.settings()), _domain_note(model, benchmark)]
    if outcome.items < (every := len(benchmark.samples)):
        notes.append(f"Only the first {outcome.items} of {every} items were asked about (--limit).")
    result = replace(outcome.result, notes=(*filter(None, notes), *outcome.result.notes))
    record = {"benchmark": benchmark.name, **read_json(store.run_path, mapping())}
    if choices is not None:
        record["choices"] = asdict(choices)
    write_outcome(folder, replace(outcome, result=result), record)
    if sweep := result.rows.get("sweep"):
        gap = next((row for row in result.rows["tags"] if row["tagger"] == "s_pixel"), None)
        plot_sweep(sweep, gap, folder / "sweep.png")
    return read_run(folder)


def _domain_note(model: TTD, benchmark: Benchmark, looked_at: int = 50) -> str:
    """What is wrong where many of the benchmark's images do not look like those that a small model learned from."""
    if model.encoder.domain is None:
        return ""
    samples = benchmark.samples[:: max(1, -(-len(benchmark.samples) // looked_at))]
    found = []
    for sample in samples:
        # What cannot be read is counted where it is measured.
        with suppress(TTDError, OSError):
            found.append(model.notice(read_image(sample.image)))
    notices = [notice for notice in found if notice]
    return f"{len(notices)} of {len(found)} images that were checked: {notices[0]}." if notices else ""
