"""How a table is written: cells for a terminal, Markdown, HTML, LaTeX, CSV, JSON."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ttd.evaluation.report.tables import SHARES, Cell, Row, Table
from ttd.viz.typography import clean

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
    names = (*(clean(name) for name in row.names), *[""] * (len(table.names) - len(row.names)))
    numbers = tuple(_number(table, column, row.cells.get(column), best) for column in table.columns)
    return (*names, *numbers, *filter(None, [clean(row.source)]))


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
    parts = [f"## {clean(table.title)}"]
    if common := _common(table):
        parts.append(clean(common))
    parts.append(_markdown_rows(table, (*table.rows, *table.published)))
    if table.others:
        rows = _markdown_rows(table, table.others)
        parts.append(f"<details><summary>{left_out(table)}</summary>\n\n{rows}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _markdown_rows(table: Table, rows: Sequence[Row]) -> str:
    rule = [*["---"] * len(table.names), *["---:"] * len(table.columns), *["---"] * _has_sources(rows)]
    lines = [head(table, rows), rule, *(cells(table, row, lambda text: f"**{text}**") for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def to_html(table: Table) -> str:
    """A heading and the table in a box that scrolls by itself; the rows under other protocols behind a click."""
    body = _html_rows(table, (*table.rows, *table.published))
    if table.folded:
        return f"<details><summary>{html.escape(table.title)}</summary>{body}</details>"
    others = f"<details><summary>{left_out(table)}</summary>{_html_rows(table, table.others)}</details>"
    return (
        f"<h2>{html.escape(table.title)}</h2><p>{html.escape(clean(_common(table)))}</p>{body}"
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
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(char, char) for char in text)


def to_latex(table: Table) -> str:
    """A floating table for a document with the package booktabs; rows under other protocols are left out."""
    every = (*table.rows, *table.published)
    form = "l" * len(table.names) + "r" * len(table.columns) + "l" * _has_sources(every)

    def line(values: Sequence[str]) -> str:
        return " & ".join(latex_text(v).replace(BEST, "\\textbf{").replace(BEST_END, "}") for v in values) + " \\\\"

    def body(rows: Sequence[Row]) -> list[str]:
        return [line(cells(table, row, marked_best)) for row in rows]

    caption = clean(" ".join(filter(None, (f"{table.title}.", _common(table)))))
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
    writer.writerows({name: clean(v) if isinstance(v, str) else v for name, v in row.items()} for row in records)
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
