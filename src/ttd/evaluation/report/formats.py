"""Tables in each format: cells for a terminal, Markdown, HTML, LaTeX, CSV, JSON; and the page of all of them."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ttd.evaluation.report.finished_run import FinishedRun
from ttd.evaluation.report.gallery import HEAD
from ttd.evaluation.report.tables import SHARES, Cell, Row, Table, per_class, tables, titles
from ttd.files import write_file
from ttd.text.words import printable
from ttd.viz.overlays import inline_image

Tables = Mapping[str, Sequence[Table]]
"""Tables by what they are about, e.g. the benchmark."""

BEST, BEST_END = "\ue000", "\ue001"  # around the best number while a line is escaped


def marked_best(text: str) -> str:
    """The number between marks, for formats that escape what they write."""
    return f"{BEST}{text}{BEST_END}"


def head(table: Table, rows: Sequence[Row]) -> tuple[str, ...]:
    """The headings of all columns of these rows of the table."""
    return (*table.names, *table.columns, *["source"] * _has_sources(rows))


def cells(table: Table, row: Row, best: Callable[[str], str] = str) -> tuple[str, ...]:
    """One row as text without control characters, under `head`; `best` marks the best number of a column."""
    names = (*(printable(name) for name in row.names), *[""] * (len(table.names) - len(row.names)))
    numbers = tuple(_number(table, column, row.cells.get(column), best) for column in table.columns)
    return (*names, *numbers, *filter(None, [printable(row.source)]))


def _has_sources(rows: Sequence[Row]) -> bool:
    return any(row.source for row in rows)


def _number(table: Table, column: str, cell: Cell | None, best: Callable[[str], str]) -> str:
    if cell is None:
        return ""
    digits = 3 if column in SHARES else 1
    text = f"{cell.value:.{digits}f}"
    text = best(text) if cell.value == table.best.get(column) else text
    if cell.deviation is not None:
        text += f" ±{cell.deviation:.{digits}f}"
    if cell.gain is not None:
        ends = "" if cell.interval is None else " [{:+.{d}f}, {:+.{d}f}]".format(*cell.interval, d=digits)
        text += f" ({cell.gain:+.{digits}f}{ends})"
    return text


def left_out(table: Table) -> str:
    """A sentence about the published rows under other protocols; "" without any."""
    count = len(table.others)
    return f"{count} published row{'s' * (count != 1)} under other protocols" if count else ""


def _common(table: Table) -> str:
    return f"All: {table.common}." if table.common and table.rows else ""


def to_markdown(table: Table) -> str:
    """A heading, the table, and the rows under other protocols folded below it."""
    parts = [f"## {printable(table.title)}"]
    if common := _common(table):
        parts.append(printable(common))
    parts.append(_markdown_rows(table, (*table.rows, *table.published)))
    if table.others:
        rows = _markdown_rows(table, table.others)
        parts.append(f"<details><summary>{left_out(table)}</summary>\n\n{rows}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _markdown_rows(table: Table, rows: Sequence[Row]) -> str:
    rule = [*["---"] * len(table.names), *["---:"] * len(table.columns), *["---"] * _has_sources(rows)]
    return markdown_table(head(table, rows), rule, [cells(table, row, lambda text: f"**{text}**") for row in rows])


def markdown_table(head: Sequence[str], rule: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells under a head; `rule` says of each column how it is aligned: "---" left, "---:" right."""
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def to_html(table: Table) -> str:
    """A heading and the table in a box that scrolls by itself; the rows under other protocols behind a click."""
    body = _html_rows(table, (*table.rows, *table.published))
    if table.folded:
        return f"<details><summary>{html.escape(table.title)}</summary>{body}</details>"
    others = f"<details><summary>{left_out(table)}</summary>{_html_rows(table, table.others)}</details>"
    return (
        f"<h2>{html.escape(table.title)}</h2><p>{html.escape(printable(_common(table)))}</p>{body}"
        f"{others if table.others else ''}"
    )


def _html_rows(table: Table, rows: Sequence[Row]) -> str:
    kinds = ["name"] * len(table.names) + ["number"] * len(table.columns) + ["name"] * _has_sources(rows)

    def line(values: Sequence[str], tag: str, ours: bool = False) -> str:
        pairs = zip(kinds, values, strict=True)
        fields = "".join(f"<{tag} class={kind}>{html.escape(value)}</{tag}>" for kind, value in pairs)
        return f"<tr{' class=ours' * ours}>{fields.replace(BEST, '<b>').replace(BEST_END, '</b>')}</tr>"

    body = "".join(line(cells(table, row, marked_best), "td", row in table.rows and not table.folded) for row in rows)
    return f"<div class=scroll><table>{line(head(table, rows), 'th')}{body}</table></div>"


_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "…": "\\ldots{}",
    "<": "$<$",
    ">": "$>$",
}


def latex_text(text: str) -> str:
    """Text that LaTeX prints verbatim."""
    return "".join(_LATEX.get(char, char) for char in text)


def to_latex(table: Table) -> str:
    """A floating table for a document with the package booktabs; rows under other protocols are left out."""
    every = (*table.rows, *table.published)
    form = "l" * len(table.names) + "r" * len(table.columns) + "l" * _has_sources(every)

    def line(values: Sequence[str]) -> str:
        return " & ".join(latex_text(v).replace(BEST, "\\textbf{").replace(BEST_END, "}") for v in values) + " \\\\"

    def body(rows: Sequence[Row]) -> list[str]:
        return [line(cells(table, row, marked_best)) for row in rows]

    caption = printable(" ".join(filter(None, (f"{table.title}.", _common(table)))))
    rows = [*body(table.rows), *(["\\midrule"] if table.published else []), *body(table.published)]
    lines = [
        "% \\usepackage{booktabs}",
        *([f"% {left_out(table)} are left out"] if table.others else []),
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{latex_text(caption)}}}",
        f"\\begin{{tabular}}{{{form}}}",
        "\\toprule",
        line(head(table, every)),
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_records(tables: Tables) -> list[dict[str, Any]]:
    """One flat record for each row of all tables, numbers not rounded."""
    found = []
    for about, several in tables.items():
        for table in several:
            for origin, row in _origins(table):
                names = row.facts or dict(zip(table.names, row.names, strict=False))
                numbers: dict[str, float] = {}
                for column in (column for column in table.columns if column in row.cells):
                    numbers |= _numbers(column, row.cells[column])
                where = {"benchmark": about, "table": table.title, "origin": origin}
                found.append({**where, **names, "source": row.source, **numbers})
    return found


def _origins(table: Table) -> Iterator[tuple[str, Row]]:
    for origin, rows in (
        ("ours", table.rows),
        ("published", table.published),
        ("published, other protocol", table.others),
    ):
        for row in rows:
            yield origin, row


def _numbers(column: str, cell: Cell) -> dict[str, float]:
    low, high = cell.interval or (None, None)
    parts = {"": cell.value, " deviation": cell.deviation, " gain": cell.gain, " gain low": low, " gain high": high}
    return {column + name: value for name, value in parts.items() if value is not None}


def to_json(tables: Tables) -> str:
    """All rows as a list of objects."""
    return json.dumps(to_records(tables), indent=1, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"


def to_csv(tables: Tables) -> str:
    """All rows under the headings of all tables; empty where a table has no such column."""
    records = to_records(tables)
    stream = io.StringIO()
    heads = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(stream, list(heads), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: printable(v) if isinstance(v, str) else v for name, v in row.items()} for row in records)
    return stream.getvalue()


def join(tables: Tables, write: Callable[[Table], str]) -> str:
    """All tables, one after the other."""
    return "\n".join(write(table) for several in tables.values() for table in several)


FORMATS: dict[str, tuple[str, Callable[[Tables], str]]] = {
    "markdown": ("md", lambda tables: join(tables, to_markdown)),
    "latex": ("tex", lambda tables: join(tables, to_latex)),
    "csv": ("csv", to_csv),
    "json": ("json", to_json),
}
"""By name: the ending of a file, and what it holds."""


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
        write_file(path, text, errors="replace")
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
