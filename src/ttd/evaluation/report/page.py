"""Runs of `ttd eval` joined into one page of tables, ours beside the published rows, in Markdown and HTML."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ttd.evaluation.report.finished_run import FinishedRun
from ttd.evaluation.report.formats import to_html, to_markdown
from ttd.evaluation.report.gallery import HEAD
from ttd.evaluation.report.tables import Table, per_class, tables, titles
from ttd.files import whole_file
from ttd.viz.overlays import inline_image

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:1.2em;max-width:75em;color:#141414}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin:1.4em 0 .2em}p{margin:.3em 0}summary{cursor:pointer;color:#555}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:left}.number{text-align:right;white-space:nowrap}"
    "tr.ours{background:#eef6ff}img{max-width:100%}"
    "@media(max-width:600px){body{font-size:13px;margin:.6em}td,th{padding:.2em .35em}}"
)


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

    def table(self, table: Table) -> None:
        self.markdown.append(to_markdown(table))
        self.html.append(to_html(table))

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
        for table in tables(mine):
            page.table(table)
        for name, note in _notes(mine):
            page.paragraph(name, note)
        if images and benchmark in images:
            page.link("Images: best, median and worst", images[benchmark])
        for title, run in zip(titles(mine), mine, strict=True):
            if run.sweep is not None:
                page.plot(f"Every threshold: {title}", run.sweep, folder)
        if classes := per_class(mine):
            page.table(classes)
    whole = f"{HEAD}<title>ttd report</title><style>{STYLE}</style></head><body>{''.join(page.html)}</body></html>\n"
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


def _notes(runs: Sequence[FinishedRun]) -> Iterator[tuple[str, str]]:
    """What is to be known of the runs, each sentence once: who it is about, and the sentence."""
    about: dict[str, list[str]] = {}
    for title, run in zip(titles(runs), runs, strict=True):
        skipped = [f"Skipped {len(run.skipped)}."] if run.skipped else []
        counted = f"{run.results['measured']} of {run.results['items']} items."
        for note in (counted, *skipped, *run.results.get("notes", ())):
            about.setdefault(note, []).append(title)
    sentences: dict[str, list[str]] = {}
    for note, names in about.items():
        sentences.setdefault("; ".join(names) if len(names) < len(runs) else "All", []).append(note)
    for name, notes in sorted(sentences.items(), key=lambda item: item[0] != "All"):
        yield name, " ".join(notes)
