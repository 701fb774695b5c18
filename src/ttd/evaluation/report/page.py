"""Runs of `ttd eval` joined into one page of tables, ours beside the published rows, in Markdown and HTML."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ttd.evaluation.report.finished_run import FinishedRun
from ttd.evaluation.report.tables import Comparison, comparisons
from ttd.files import whole_file
from ttd.viz.overlays import inline_image
from ttd.viz.typography import clean

_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child"
    "{text-align:left}table.compared td:last-child,table.compared th:last-child{text-align:left}"
    "tr.ours{background:#eef6ff;font-weight:600}img{max-width:100%}"
)
_PER_CLASS = "IoU of each class"
_PRECISIONS = "Average precision (AP) of each class"


@dataclass(frozen=True)
class _Page:
    """One page in both forms, block by block."""

    markdown: list[str]
    html: list[str]

    def head(self, text: str) -> None:
        self.markdown.append(f"# {text}\n")
        self.html.append(f"<h1>{html.escape(text)}</h1>")

    def paragraph(self, name: str, text: str) -> None:
        self.markdown.append(f"**{name}**: {text}\n")
        self.html.append(f"<p><b>{html.escape(name)}</b>: {html.escape(text)}</p>")

    def table(self, comparison: Comparison, *, folded: bool = False) -> None:
        self.markdown.append(_markdown(comparison))
        self.html.append(_html(comparison, folded=folded))

    def plot(self, title: str, path: Path, folder: Path) -> None:
        """Markdown refers to the run's file, HTML carries it."""
        address = quote(Path(os.path.relpath(path, folder)).as_posix())
        self.markdown.append(f"## {title}\n\n![{title}]({address})\n")
        self.html.append(f"<h2>{html.escape(title)}</h2><img alt='{html.escape(title)}' src='{inline_image(path)}'>")

    def link(self, text: str, address: str) -> None:
        self.markdown.append(f"[{text}]({address})\n")
        self.html.append(f"<p><a href='{html.escape(address)}'>{html.escape(text)}</a></p>")


def write_report(
    runs: Sequence[FinishedRun], folder: Path, images: Mapping[str, str] | None = None
) -> tuple[Path, Path]:
    """Writes `report.md` and `report.html`; gives their paths.

    Args:
        runs: of any benchmarks; those of one benchmark share its tables.
        folder: for the two files.
        images: pages of images in `folder`, by benchmark.
    """
    page = _Page([], [])
    for benchmark, mine in by_benchmark(runs).items():
        page.head(benchmark)
        for run in mine:
            notes = " ".join([f"Protocol {run.protocol}.", *run.results["notes"], *_skipped(run.results)])
            page.paragraph(run.title, f"{run.results['measured']} of {run.results['items']} items. {notes}")
        for comparison in comparisons([(run.title, run.results) for run in mine]):
            page.table(comparison)
        if images and benchmark in images:
            page.link("Images: best, median and worst", images[benchmark])
        for run in mine:
            if run.sweep is not None:
                page.plot(f"Every threshold: {run.title}", run.sweep, folder)
        if any(classes := [run.table("per_class") for run in mine]):
            page.table(_per_class([run.title for run in mine], classes), folded=True)
    whole = (
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>ttd report</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(page.html)}</body></html>\n"
    )
    paths = folder / "report.md", folder / "report.html"
    for path, text in zip(paths, ("\n".join(page.markdown), whole), strict=True):
        with whole_file(path) as part:
            part.write_text(text, "utf-8", errors="replace")
    return paths


def by_benchmark(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs in the order given, under the benchmarks' names."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.benchmark_name, []).append(run)
    return groups


def _skipped(results: Mapping[str, Any]) -> list[str]:
    return [f"Skipped {len(results['skipped'])}."] if results["skipped"] else []


def _per_class(titles: Sequence[str], tables: Sequence[Sequence[Mapping[str, str]]]) -> Comparison:
    """IoU of every class in percent, a column for each run (average precision: for each run and score); empty where a
    class does not occur.
    """
    columns: dict[str, dict[str, str]] = {}
    for title, table in zip(titles, tables, strict=True):
        for measure in (name for name in (table[0] if table else ()) if name == "IoU" or name.startswith("AP ")):
            head = title if measure == "IoU" else f"{title}: {measure}"
            columns[head] = {row["class"]: row[measure] for row in table}
    rows = tuple(
        (name, *(f"{100 * float(column[name]):.1f}" if column.get(name) else "" for column in columns.values()))
        for name in dict.fromkeys(name for column in columns.values() for name in column)
    )
    ious = all(column in titles for column in columns)
    return Comparison(_PER_CLASS if ious else _PRECISIONS, ("class", *columns), rows, 0)


def _markdown(comparison: Comparison) -> str:
    compared = comparison.ours > 0
    rule = ("---", *("---:" for _ in comparison.head[1 + compared :]), *(("---",) if compared else ()))
    lines = [comparison.head, rule, *comparison.rows]
    rows = ["| " + " | ".join(clean(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]
    for number in range(2, 2 + comparison.ours):
        rows[number] = "| **" + rows[number][2:].replace(" |", "** |", 1)
    return f"## {comparison.title}\n\n" + "\n".join(rows) + "\n"


def _html(comparison: Comparison, *, folded: bool) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in comparison.head)
    body = "".join(
        f"<tr{' class=ours' if number < comparison.ours else ''}>"
        + "".join(f"<td>{html.escape(clean(cell))}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(comparison.rows)
    )
    table = f"<table{' class=compared' if comparison.ours else ''}><tr>{head}</tr>{body}</table>"
    if folded:
        return f"<details><summary>{html.escape(comparison.title)}</summary>{table}</details>"
    return f"<h2>{html.escape(comparison.title)}</h2>{table}"
