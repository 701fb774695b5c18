"""Runs of `ttd eval` joined into one page of tables, ours beside the published rows, in Markdown and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ttd.atomic import whole_file
from ttd.benchmarks.comparison import Comparison, comparisons
from ttd.errors import InputError

Run = tuple[str, Mapping[str, Any]]
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child,"
    "td:last-child,th:last-child{text-align:left}tr.ours{background:#eef6ff;font-weight:600}"
)


def read_run(folder: Path) -> Run:
    """A run's name (model, adapter, folder) and its `results.json`.

    Raises:
        InputError: the folder holds no finished run.
    """
    path = folder / "results.json"
    try:
        results = json.loads(path.read_bytes())
        model = results["settings"]["model"]
        title = str(model["name"]) + (f" + {Path(model['adapter']).name}" if model["adapter"] else "")
        if not isinstance(results["numbers"], dict):
            raise TypeError
    except FileNotFoundError:
        raise InputError(f"{folder} holds no results.json: give folders that `ttd eval --out` wrote") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no result of `ttd eval`: run it again") from None
    return f"{title} [{folder.resolve().name}]", results


def write_report(runs: Sequence[Run], folder: Path) -> tuple[Path, Path]:
    """Writes `report.md` and `report.html`; gives their paths."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(run[1]["benchmark"]), []).append(run)
    markdown, page = [], []
    for benchmark, mine in groups.items():
        markdown.append(f"# {benchmark}\n")
        page.append(f"<h1>{html.escape(benchmark)}</h1>")
        for name, results in mine:
            notes = [*results["notes"], *_skipped(results)]
            markdown.append(f"**{name}**: {results['measured']} of {results['items']} items. {' '.join(notes)}\n")
            text = f"{results['measured']} of {results['items']} items. {' '.join(notes)}"
            page.append(f"<p><b>{html.escape(name)}</b>: {html.escape(text)}</p>")
        for comparison in comparisons(mine):
            markdown.append(_markdown(comparison))
            page.append(_html(comparison))
    whole = f"<!doctype html><meta charset=utf-8><title>ttd report</title><style>{_STYLE}</style>{''.join(page)}\n"
    paths = folder / "report.md", folder / "report.html"
    for path, text in zip(paths, ("\n".join(markdown), whole), strict=True):
        with whole_file(path) as part:
            part.write_text(text, "utf-8")
    return paths


def _skipped(results: Mapping[str, Any]) -> list[str]:
    return [f"Skipped {len(results['skipped'])}."] if results["skipped"] else []


def _markdown(comparison: Comparison) -> str:
    lines = [comparison.head, ("---", *("---:" for _ in comparison.head[2:]), "---"), *comparison.rows]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    for number in range(2, 2 + comparison.ours):
        rows[number] = "| **" + rows[number][2:].replace(" |", "** |", 1)
    return f"## {comparison.title}\n\n" + "\n".join(rows) + "\n"


def _html(comparison: Comparison) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in comparison.head)
    body = "".join(
        f"<tr{' class=ours' if number < comparison.ours else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        + "</tr>"
        for number, row in enumerate(comparison.rows)
    )
    return f"<h2>{html.escape(comparison.title)}</h2><table><tr>{head}</tr>{body}</table>"
