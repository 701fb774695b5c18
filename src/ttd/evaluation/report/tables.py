"""A run's numbers as tables, beside the published rows: for the screen and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttd.evaluation.datasets.refcoco import PARTITIONS
from ttd.evaluation.registry import is_whole
from ttd.evaluation.report.published import published

# Published as shares, everything else as percent.
_SHARES = ("mFPR", "mFNR", "AUC per image", "AUC per word")
_SPLITS = ("val", "testA", "testB", "test")
_COLUMNS = {
    "classes": ("mIoU", "mFPR", "mFNR", "pixel accuracy"),
    "tags": ("precision", "recall", "F1", "accuracy", "mAP", "absent selected", "filler selected"),
    "masks": ("CaptionIoU", "mFPR", "mFNR", "whole image IoU", "pooled CaptionIoU", "empty masks"),
    "controls": ("AUC per image", "AUC per word"),
    "multilabel": ("mAP",),
    **dict.fromkeys(_SPLITS, ("mIoU", "pooled IoU", "whole image IoU", "empty masks")),
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
class Comparison:
    """One table: `head` and `rows` of text; the first `ours` rows are measured, the others published."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: int


def comparisons(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Comparison]:
    """Tables of runs on one benchmark.

    Args:
        runs: a name and the content of its `results.json`, all of the same benchmark.
    """
    benchmark = str(runs[0][1]["benchmark"])
    tables = []
    for kind in _TABLES.get(benchmark, ("classes",)):
        columns = _COLUMNS[kind]
        mine = [row for name, results in runs for row in _own_rows(kind, name, results)]
        if not mine:
            continue
        others = [(row.label, row.numbers, row.source) for row in published(benchmark, kind)]
        used = [c for c in columns if any(c in numbers for _, numbers, _ in (*mine, *others))]
        body = tuple(
            (name, *(_cell(column, numbers.get(column)) for column in used), source)
            for name, numbers, source in (*mine, *others)
        )
        tables.append(Comparison(_TITLES[kind], ("", *used, "source"), body, len(mine)))
    return tables


def _own_rows(kind: str, name: str, results: Mapping[str, Any]) -> list[tuple[str, dict[str, float], str]]:
    """Measured rows in the unit of published ones."""
    numbers: Mapping[str, float | None] = results["numbers"]
    task = results.get("settings", {}).get("task")
    whole = is_whole(str(results["benchmark"]), results["measured"], task)
    count = results["measured"]
    source = f"this run, {count} item{'s' * (count != 1)}" if whole else f"this run, a sample of {count}"
    if kind in _SPLITS and (task or {}).get("split") != kind:
        return []
    if kind not in ("tags", "multilabel"):
        found = {c: _unit(c, value) for c in _COLUMNS[kind] if (value := numbers.get(c)) is not None}
        needed = _COLUMNS[kind][0]
        return [(name, found, source)] if needed in found else []
    rows: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        tagger, _, measure = key.partition(": ")
        if measure and value is not None:
            rows.setdefault(tagger, {})[measure] = _unit(measure, value)
    return [(f"{tagger} ({name})", found, source) for tagger, found in rows.items()]


def _unit(measure: str, value: float) -> float:
    return value if measure in _SHARES else 100 * value


def _cell(measure: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if measure in _SHARES else f"{value:.1f}"
