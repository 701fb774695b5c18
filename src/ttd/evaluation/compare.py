"""Many runs as one table: a row for each model, adapter, method and protocol, a column for each benchmark's measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ttd.evaluation.bootstrap import Statistic, mean_statistic, paired_differences
from ttd.evaluation.report.finished_run import FinishedRun, told_apart
from ttd.evaluation.report.tables import Cell, Row, Table
from ttd.runs.results_file import RunRecords


@dataclass(frozen=True)
class Compared:
    """One row.

    Attributes:
        names: as `FinishedRun.names`, the adapter's pattern in place of one of several adapters.
        runs: by benchmark, in the order of seeds.
    """

    names: Mapping[str, str]
    runs: Mapping[str, Sequence[FinishedRun]]


def comparison(rows: Sequence[Compared]) -> Table:
    """The table of rows that measured the same benchmarks: means and deviations over their runs, gains over the first
    row with their 95 % intervals, and the average of each measure that several benchmarks have.
    """
    heads, names, common = told_apart([row.names for row in rows])
    cells: list[dict[str, Cell]] = [{} for _ in rows]
    measures: dict[str, str] = {}  # of each column
    for benchmark in rows[0].runs:
        for column, (measure, found) in _columns(benchmark, [row.runs[benchmark] for row in rows]).items():
            measures[column] = measure
            for row, cell in zip(cells, found, strict=True):
                row[column] = cell
    columns = list(measures)
    for measure in dict.fromkeys(measures.values()):
        several = [column for column, one in measures.items() if one == measure]
        if len(several) > 1:
            columns.append(f"Avg. {measure}")
            for row, cell in zip(cells, _average([[row[column] for column in several] for row in cells]), strict=True):
                row[columns[-1]] = cell
    body = tuple(Row(name, found, facts=row.names) for name, found, row in zip(names, cells, rows, strict=True))
    about = [common] if common else []
    about += [f"{run.results['measured']} items of {name}" for name, (run, *_) in rows[0].runs.items()]
    about += ["in brackets the gain over the first row and its 95 % interval over items"] * (len(rows) > 1)
    return Table("Comparison", heads, tuple(columns), body, common=", ".join(about))


def _columns(benchmark: str, rows: Sequence[Sequence[FinishedRun]]) -> dict[str, tuple[str, list[Cell]]]:
    """The measure and the cells of each column of one benchmark."""
    shared = set.intersection(*(_measured(run) for runs in rows for run in runs))
    statistics = [[_statistic(run, shared) for run in runs] for runs in rows]
    names = list(statistics[0][0](np.ones((1, len(shared)))))
    columns = {}
    for name in names:
        values = [np.array([100 * run.results["numbers"][name] for run in runs], np.float64) for runs in rows]
        measure = name.rpartition(": ")[2]
        columns[f"{benchmark} {measure}"] = (measure, [_cell(one) for one in values])
    for place, runs in enumerate(statistics[1:], 1):
        found = paired_differences(mean_statistic(statistics[0]), runs, len(shared))
        for (_, cells), name in zip(columns.values(), names, strict=True):
            interval = (100 * found[name].low, 100 * found[name].high)
            cell = cells[place]
            cells[place] = Cell(cell.value, cell.deviation, cell.value - cells[0].value, interval)
    return columns


def _measured(run: FinishedRun) -> set[str]:
    ids = [sample.id for sample in run.benchmark().samples][: run.results["items"]]
    return {record["id"] for record in RunRecords(run.folder).records(ids)}


def _statistic(run: FinishedRun, ids: set[str]) -> Statistic:
    benchmark = run.benchmark()
    order = [sample.id for sample in benchmark.samples if sample.id in ids]
    measure = benchmark.resampler(RunRecords(run.folder).records(order, benchmark.check))
    assert measure is not None, f"{benchmark.name} compares no measure"
    return measure


def _cell(values: np.ndarray) -> Cell:
    return Cell(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def _average(rows: Sequence[Sequence[Cell]]) -> list[Cell]:
    """Means of each row's cells, the gains over the first row's."""
    means = [float(np.mean([cell.value for cell in row])) for row in rows]
    return [Cell(mean, gain=mean - means[0] if place else None) for place, mean in enumerate(means)]
