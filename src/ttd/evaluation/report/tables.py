"""The content of the tables: runs and published rows. `formats` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

from ttd.evaluation.datasets.refcoco import PARTITIONS
from ttd.evaluation.registry import is_whole
from ttd.evaluation.report.finished_run import FinishedRun, naming
from ttd.evaluation.tasks.multilabel import CONSTANT
from ttd.evaluation.tasks.referring import PRECISIONS
from ttd.evaluation.tasks.tag_tables import EVERY_NOUN, SHUFFLED
from ttd.files.documents import parse_json


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        benchmark: name, as for `ttd eval`.
        table: "classes", "tags", "masks", or a split.
        method: as the source calls it.
        numbers: by measure; percent, but mFPR and mFNR as shares.
        source: the table that has the row.
        setting: encoder, refinement and the like, as far as the source says.
        protocols: those of ours that are the source's; none: not known, or none of ours.
        refine: its refinement, by our name; "": the numbers have nothing to do with one.
    """

    benchmark: str
    table: str
    method: str
    numbers: dict[str, float]
    source: str
    setting: str = ""
    protocols: tuple[str, ...] = ()
    refine: str = ""

    def is_under(self, protocol: str, refinement: str) -> bool:
        """Whether a run by this protocol and refinement compares with this row."""
        return protocol in self.protocols and self.refine in ("", refinement)

    @property
    def label(self) -> str:
        """The method with its setting."""
        return f"{self.method} ({self.setting})" if self.setting else self.method


def published(benchmark: str, table: str) -> list[Published]:
    """The rows for one benchmark's table, in the order of the sources."""
    return [row for row in _all() if (row.benchmark, row.table) == (benchmark, table)]


@cache
def _all() -> tuple[Published, ...]:
    content = parse_json(files("ttd").joinpath("assets/published.json").read_bytes())
    return tuple(Published(**{**row, "protocols": tuple(row.get("protocols", ()))}) for row in content["rows"])


# Published as shares, everything else as percent.
SHARES = ("mFPR", "mFNR", "AUC per image", "AUC per word")
LOWER_IS_BETTER = ("mFPR", "mFNR", "absent selected", "filler selected")
CONTROLS = ("whole image IoU", "empty masks")
_SPLITS = ("val", "testA", "testB", "test")
_COLUMNS = {
    "classes": ("mIoU", "mFPR", "mFNR", "pixel accuracy"),
    "tags": ("precision", "recall", "F1", "accuracy", "mAP", "absent selected", "filler selected"),
    "masks": ("CaptionIoU", "mFPR", "mFNR", "whole image IoU", "pooled CaptionIoU", "empty masks"),
    "controls": ("AUC per image", "AUC per word"),
    "multilabel": ("mAP",),
    **dict.fromkeys(
        _SPLITS, ("mIoU", "pooled IoU", *(f"Precision@{x}" for x in PRECISIONS), "whole image IoU", "empty masks")
    ),
}
# The tables of each benchmark; those that are not named have one of classes.
_TABLES = {
    "tagmask": ("tags", "masks", "controls"),
    "coco-80": ("multilabel",),
    "nus-wide": ("multilabel",),
    **dict.fromkeys(PARTITIONS, _SPLITS),
}
_TITLES = {
    "classes": "Classes of pixels",
    "tags": "Words selected from captions",
    "masks": "Masks of captions",
    "controls": "s_pixel of present against absent words",
    "multilabel": "Classes of whole images",
    **{split: f"Masks of expressions, {split}" for split in _SPLITS},
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: in percent, or a share for `SHARES`; a mean where there are several runs.
        deviation: the standard deviation over runs.
        gain: the difference to the first row.
        interval: the gain's 95 % interval.
    """

    value: float
    deviation: float | None = None
    gain: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        names: one under each of the table's headings.
        cells: numbers by column.
        source: where they come from; "" in all rows where that needs no saying.
        facts: all that is known about the row, by heading, for formats that people do not read.
        is_control: never the best, whatever its numbers are.
        sample: which part of the data set it was measured on; "": all of it, as published rows are.
    """

    names: tuple[str, ...]
    cells: Mapping[str, Cell]
    source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    is_control: bool = False
    sample: str = ""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: of the table.
        names: headings of the columns that name a row.
        columns: measures.
        rows: measured by us.
        published: rows of others under the protocol of one of ours.
        others: rows of others under other protocols: they compare with nothing here.
        common: what all rows of ours share, one sentence.
        folded: closed until it is asked for, where a page can do that.
    """

    title: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    published: tuple[Row, ...] = ()
    others: tuple[Row, ...] = ()
    common: str = ""
    folded: bool = False
    best: Mapping[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Finds the best value of each column among rows on the same data as our first, where several have one."""
        best = {}
        every = [row for row in (*self.rows, *self.published) if not row.is_control]
        every = [row for row in every if row.sample == every[0].sample]
        for column in self.columns:
            values = [row.cells[column].value for row in every if column in row.cells]
            if len(values) > 1 and column not in CONTROLS and not self.folded:
                best[column] = min(values) if column in LOWER_IS_BETTER else max(values)
        object.__setattr__(self, "best", best)


def tables(runs: Sequence[FinishedRun]) -> list[Table]:
    """Tables of runs on one benchmark."""
    benchmark = runs[0].benchmark_name
    heads, names, common = naming(runs)
    found = []
    for kind in _TABLES.get(benchmark, ("classes",)):
        mine = [row for run, name in zip(runs, names, strict=True) for row in _own_rows(kind, name, run)]
        if kind in ("tags", "multilabel"):  # runs beside each other for each tagger
            order = list(dict.fromkeys(row.names[0] for row in mine))
            mine.sort(key=lambda row: order.index(row.names[0]))
        if not mine:
            continue
        same, others = _published(benchmark, kind, runs)
        used = tuple(c for c in _COLUMNS[kind] if any(c in row.cells for row in (*mine, *same, *others)))
        first = ("tagger",) if kind in ("tags", "multilabel") else ()
        measured_on = {row.source for row in mine}
        if not same and len(measured_on) == 1:  # said once
            mine = [replace(row, source="") for row in mine]
            about = ", ".join(filter(None, (common, *measured_on)))
        else:
            about = common
        found.append(Table(_TITLES[kind], (*first, *heads), used, tuple(mine), same, others, about))
    return found


def per_class(runs: Sequence[FinishedRun]) -> Table | None:
    """IoU of every class, a column for each run (average precision: for each run and score); None without any."""
    columns: dict[str, dict[str, str]] = {}
    for title, run in zip(titles(runs), runs, strict=True):
        rows = run.table("per_class")
        for measure in (name for name in (rows[0] if rows else ()) if name == "IoU" or name.startswith("AP ")):
            columns[title if measure == "IoU" else f"{title}: {measure}"] = {row["class"]: row[measure] for row in rows}
    if not columns:
        return None
    classes = dict.fromkeys(name for column in columns.values() for name in column)
    cells = [
        Row((name,), {head: Cell(100 * float(column[name])) for head, column in columns.items() if column.get(name)})
        for name in classes
    ]
    precisions = any(": AP " in head for head in columns)
    title = "Average precision (AP) of each class" if precisions else "IoU of each class"
    return Table(title, ("class",), tuple(columns), tuple(cells), folded=True)


def titles(runs: Sequence[FinishedRun]) -> list[str]:
    """A name for each run in one line: the model and what differs."""
    return [", ".join(part for part in name if part) for name in naming(runs)[1]]


def _published(benchmark: str, kind: str, runs: Iterable[FinishedRun]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows under the protocol and refinement of one of the runs, and the others."""
    asked = {(run.protocol, run.refinement) for run in runs if not run.changes}
    groups: tuple[list[Row], list[Row]] = ([], [])
    for one in published(benchmark, kind):
        is_other = not any(one.is_under(*protocol) for protocol in asked)
        groups[is_other].append(_row(one))
    return tuple(groups[0]), tuple(groups[1])


def _row(one: Published) -> Row:
    return Row((one.label,), {column: Cell(value) for column, value in one.numbers.items()}, one.source)


def _own_rows(kind: str, names: tuple[str, ...], run: FinishedRun) -> list[Row]:
    """Measured rows in the unit of published ones."""
    results = run.results
    numbers: Mapping[str, float | None] = results["numbers"]
    task = results["settings"].get("task") or {}
    if kind in _SPLITS and task.get("split") != kind:
        return []
    count = results["measured"]
    sample = "" if is_whole(run.benchmark_name, count, task) else f"a sample of {count}"
    source = f"this run, {sample or f'{count} item' + 's' * (count != 1)}"
    if kind not in ("tags", "multilabel"):
        found = {c: _cell(c, value) for c in _COLUMNS[kind] if (value := numbers.get(c)) is not None}
        return [Row(names, found, source, run.facts, sample=sample)] if _COLUMNS[kind][0] in found else []
    rows: dict[str, dict[str, Cell]] = {}
    for key, value in numbers.items():
        tagger, _, measure = key.partition(": ")
        if measure and value is not None:
            rows.setdefault(tagger, {})[measure] = _cell(measure, value)
    return [
        Row((tagger, *names), found, source, {"tagger": tagger, **run.facts}, _is_control(tagger), sample)
        for tagger, found in rows.items()
    ]


def _is_control(tagger: str) -> bool:
    return tagger in (EVERY_NOUN, CONSTANT) or tagger.endswith(SHUFFLED)


def _cell(measure: str, value: float) -> Cell:
    return Cell(value if measure in SHARES else 100 * value)
