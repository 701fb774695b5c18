"""The proof's tables: means over seeds with their spread, and differences paired scene by scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.prove.inputs import wrong_share
from experiments.prove.measured import PAIRED, Measured
from experiments.prove.plan import BASES, RUNS, TABLES, Table
from experiments.prove.work import best_method, read
from ttd.documents import read_json
from ttd.files import whole_file
from ttd.schema import mapping

_BASE_OF = {method: name for name, method in BASES.items()}
AIM = {
    "absent selected": -1,
    "CaptionIoU": 1,
    "CaptionIoU, objects only": 1,
    "mIoU": 1,
    "AUC per image": 1,
    "AUC per word": 1,
}


@dataclass(frozen=True)
class Difference:
    """After minus before on the same scenes, after being the mean over seeds.

    Attributes:
        mean: over the scenes.
        error: half the width of its 95 % interval over scenes.
        seeds: the mean difference of every seed.
    """

    mean: float
    error: float
    seeds: tuple[float, ...]


def difference(before: Sequence[float], after: Sequence[Sequence[float]]) -> Difference:
    """Paired over the scenes where both have a value (NaN: none); `after` has a list for every seed."""
    gaps = np.array(after, np.float64) - np.array(before, np.float64)[None]  # (seeds, scenes)
    gaps = gaps[:, np.isfinite(gaps).all(0)]
    per_scene = gaps.mean(0)
    error = 1.96 * per_scene.std(ddof=1) / np.sqrt(len(per_scene)) if len(per_scene) > 1 else float("nan")
    return Difference(float(per_scene.mean()), float(error), tuple(gaps.mean(1).tolist()))


def to_markdown(folder: Path) -> str:
    """All tables of a proof's folder; a run that is not done yet has an empty row."""
    base = read(folder, "base")[0]
    lines = ["# TTD on the embedded world", "", *_about(folder, base), ""]
    for table in TABLES:
        lines += [f"## {table.title}", "", *_rows(folder, table), ""]
        if any(name == "mixed" for _, name in table.rows):
            lines += [*_pruned(folder), ""]
    lines += ["## The aim: better in everything, best method", "", *_aim(folder), ""]
    lines += ["## Paired differences to the same block before training", "", *_differences(folder), ""]
    return "\n".join(lines)


def write_tables(folder: Path) -> str:
    """Writes `proof.md` and `tables.json`; gives the Markdown."""
    text = to_markdown(folder)
    with whole_file(folder / "proof.md") as part:
        part.write_text(text, "utf-8")
    numbers = {name: [one.numbers for one in read(folder, name)] for name in (*BASES, *(run.name for run in RUNS))}
    with whole_file(folder / "tables.json") as part:
        part.write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    return text


def _about(folder: Path, base: Measured) -> list[str]:
    size: dict[str, Any] = read_json(folder / "proof.json", mapping())
    best, methods = best_method(folder)
    control = base.controls
    precision, f1 = control["every noun: precision"], control["every noun: F1"]
    whole, whole_objects = control["whole image IoU"], control["whole image IoU, objects only"]
    found = ", ".join(f"{name} {value:.3f}" for name, value in methods.items())
    return [
        f"`mini` ({size['base'][:10]}), {size['pairs']:,} training pairs, measured on {size['test']:,} test scenes.",
        f"Chosen on {size['validation']:,} validation scenes: thresholds, and the last block's best method by mIoU,",
        f"**{best}** ({found}). Values are means over the seeds that are done, ± their standard deviation.",
        "",
        f"Controls: *every noun*, selected without looking, has precision {precision:.3f}, F1 {f1:.3f} and",
        f"absent selected 1; the whole image as the caption's mask has CaptionIoU {whole:.3f}, {whole_objects:.3f}",
        "where it names objects only; *F1, shuffled* is what the text achieves on another image; AUC .5 is chance.",
    ]


def _rows(folder: Path, table: Table) -> list[str]:
    lines = _head(table.columns)
    for title, name in table.rows:
        found = read(folder, name)
        cells = [_cell([one.numbers[column] for one in found]) for column in table.columns]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _head(columns: Sequence[str]) -> list[str]:
    return ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    text = f"{np.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ±{np.std(values, ddof=1):.3f}"


def _pruned(folder: Path) -> list[str]:
    if not (folder / "data" / "keep.parquet").exists():
        return []
    share = wrong_share(folder / "data")
    return [
        f"Pruning by `mini`'s own cosines at mean + one standard deviation keeps {share['kept']:.1%} of the pairs and",
        f"lowers the share of wrong ones from {share['wrong before']:.1%} to {share['wrong after']:.1%}.",
    ]


def _differences(folder: Path) -> list[str]:
    lines = ["Mean over scenes, ± half of its 95 % interval (in brackets: every seed).", ""]
    lines += _head(PAIRED)
    for run in RUNS:
        found = read(folder, run.name)
        if found:
            before = read(folder, _BASE_OF[run.method])[0].paired
            cells = [_difference_cell(difference(before[name], [one.paired[name] for one in found])) for name in PAIRED]
            lines.append(f"| {run.name} | " + " | ".join(cells) + " |")
    return lines


def _difference_cell(found: Difference) -> str:
    seeds = ", ".join(f"{value:+.3f}" for value in found.seeds)
    return f"{found.mean:+.3f} ±{found.error:.3f} ({seeds})"


def _aim(folder: Path) -> list[str]:
    """Whether training is better than no training in everything that a text shortcut would spoil."""
    lines = _head(("before", "after `scenes-negatives`", "every seed better"))
    before, after = read(folder, "base")[0].numbers, [one.numbers for one in read(folder, "negatives")]
    for name, sign in AIM.items():
        better = "yes" if reached([one[name] for one in after], before[name], sign) else "no"
        lines.append(
            f"| {name} | {before[name]:.3f} | {_cell([one[name] for one in after])} | {better if after else ''} |"
        )
    return lines


def reached(after: Sequence[float], before: float, sign: int) -> bool:
    """Whether every seed is on the good side of `before`; `sign` -1: lower is better, and equal is good enough."""
    return all(value <= before if sign < 0 else value > before for value in after)
