"""The proof's tables from its rows: means over seeds with their spread, differences with intervals, the aims.

python -m experiments.prove.tables --out docs/proof.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from experiments.command import Experiment
from experiments.prove.plan import (
    ABLATION_TABLES,
    AIM_A,
    AIM_A_BOUNDS,
    AIM_B,
    AIM_B_BOUNDS,
    BLOCKS,
    EVERY_SEED,
    MAIN_ROWS,
    MAIN_TABLES,
    MEMORY,
    RUNS,
    SEEDS,
    Table,
    Title,
)
from experiments.prove.rows import PRUNED, ROWS, Difference, Row, difference, read_numbers, read_rows
from ttd.errors import InputError
from ttd.evaluation.report.formats import markdown_table
from ttd.files import write_file

HEAD = """# The proof on scenes

```console
$ python -m experiments.prove --out runs/proof            # in the folder of the sources; resumes where it stopped
$ python -m experiments.prove.tables --out proof.md       # this page, from the rows in experiments/rows
```

The first command trains and measures every run of `experiments/prove/plan.py` with every seed and writes a row of
numbers for each (`runs/proof/rows`); `--run NAME` does one. The rows of this page are in `experiments/rows/mini`, with
the settings they were trained by. What they mean: [results](results.md).

![Masks of five captions: truth, before training, raw cosines, both outcomes on p, ours](images/proof-scenes.jpg)

Five captions on test scenes: each row's p, cut at the threshold that validation scenes chose for it. Drawn by
`python -m experiments.prove.figure runs/proof --row paper-raw.values-0 --row paper-10.values-0 --row paper-10.values-1
--row negatives.values-0 --out proof-scenes.jpg`.
"""

READING = """**How to read.** *Raw*: the losses pull cosines to their targets, as Eq. 3 writes it. *p*: they pull
p = sigmoid(w (cos - c)), with the constants by which TCL's authors read CLIP's cosines (w 10, c .25) or with the pair
that `ttd calibrate` fits to each block. Whatever was trained, masks and backgrounds are cut from p by the numbers of
`mini`'s `ttd.json`. Values are means over the seeds that are done (their number is in the first column), ± their
standard deviation; what was not trained is listed at the end.

- *absent selected*: the share of the nouns that a caption names and the image lacks, yet were selected
- *F1, shuffled*: what the text alone achieves, on another scene's image
- *AUC*: how often a noun that is there scores above one that is not; .5 is chance
- *CaptionIoU*: mean over captions; *of objects*: over the captions that name objects only; *pooled*: the intersections
  of all captions over their unions
- *min-max*: the map is scaled from its lowest to its highest value and cut at .5; *p*: p is cut at .5; *chosen*: cut at
  the threshold chosen on validation scenes for that model (min-max by CaptionIoU, p by the mean of CaptionIoU and
  CaptionIoU of objects)
- *mIoU, words there*: each image is asked for the words that are in it; *all words*: for all 170 words of the world;
  *background*: for the 160 nouns, and what stays below p = .5 is background (*chosen*: below the threshold with the
  highest such mIoU on validation scenes)
"""


EARLIER = "earlier.md"
"""Beside the rows: what an earlier version measured, as it stands on the page."""


def to_markdown(folder: Path) -> str:
    """The page of one base's rows.

    Raises:
        InputError: the folder holds no measured base.
    """
    lines = [HEAD, _about(folder), READING]
    for block, title in BLOCKS.items():
        if not read_rows(folder, f"base.{block}"):
            continue
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        lines += ["### Every seed, in short", "", _every_seed(folder, block), ""]
        for table in MAIN_TABLES:
            lines += _table(folder, table, block)
        lines += ["### Differences to before training", "", _DIFFERENCES, "", _differences(folder, block), ""]
    head = ["## Ablations, on “values”, by p with w 10 and c .25", ""]
    for table in ABLATION_TABLES:
        if shown := _table(folder, table, "values"):
            lines += head + shown
            head = []
        if (folder / PRUNED).exists() and any(run == "mixed" for _, run in table.rows):
            lines += [_pruned(read_numbers(folder / PRUNED)), ""]
    lines += ["## The aims", "", _AIMS, ""]
    for run, title, aim, bounds in _aims():
        lines += _aim(folder, run, title, aim, bounds)
    if (folder / EARLIER).exists():
        lines += [(folder / EARLIER).read_text("utf-8")]
    lines += ["## What was not run", "", *_missing(folder)]
    return "\n".join(lines).rstrip() + "\n"


def _missing(folder: Path) -> list[str]:
    """Runs without all seeds."""
    seeds = {run.name: {row.seed for row in read_rows(folder, run.name)} for run in RUNS}
    left = {name: [str(seed) for seed in SEEDS if seed not in done] for name, done in seeds.items()}
    lines = [f"- `{name}`: seed{'s' * (len(some) > 1)} {', '.join(some)}" for name, some in left.items() if some]
    return lines or ["Everything in the plan was run."]


_DIFFERENCES = """Mean over seeds, ± half the width of its 95 % interval: over scenes by the jackknife of the paired
difference (16 groups), over seeds by Student's t (one seed: over scenes alone). In brackets every seed."""
_AIMS = """*Better*: the mean over seeds is better by more than the half-width of its interval, and no seed is worse by
more than that."""


def _about(folder: Path) -> str:
    rows = read_rows(folder, "base.values") or read_rows(folder, "base.maskclip")
    if not rows:
        raise InputError(f"{folder} holds no row of a model before training: run python -m experiments.prove first")
    scenes, noun = rows[0].scenes, "every noun: "
    whole, objects = (rows[0].controls[f"whole image: CaptionIoU{of}"] for of in ("", " of objects"))
    precision, f1 = (rows[0].controls[noun + name] for name in ("precision", "F1"))
    trained = next((row.scenes["training"] for run in RUNS for row in read_rows(folder, run.name)), 0)
    return f"""Base `{folder.name}` ({rows[0].base[:10]}), {trained:,} training pairs, {scenes["test"]:,} test scenes;
thresholds are chosen on {scenes["validation"]:,} validation scenes. Controls: *every noun*, selected without the image,
has precision {precision:.3f}, F1 {f1:.3f} and absent selected 1; the whole image as the caption's mask has CaptionIoU
{whole:.3f}, and {objects:.3f} of objects.
"""


def rows_of(folder: Path, run: str, block: str) -> list[Row]:
    """The finished rows of a run on a block, one for each seed."""
    return read_rows(folder, f"{run}.{block}")


def _table(folder: Path, table: Table, block: str) -> list[str]:
    thresholds = {"CaptionIoU, p, chosen": "threshold of p", "CaptionIoU, min-max, chosen": "threshold of min-max"}
    thresholds["mIoU, background, chosen"] = "background's threshold"
    rows = [(title, run, found) for title, run in table.rows if (found := rows_of(folder, run, block))]
    main = {"base"} if table in MAIN_TABLES else {run for _, run in MAIN_ROWS}
    if all(run in main for _, run, _ in rows):  # nothing of the table's own
        return []
    lines = []
    for title, run, found in rows:
        cells = []
        for column in table.columns:
            cell = _cell([row.numbers[column] for row in found])
            if column in thresholds and table in MAIN_TABLES:
                cell += f" (at {', '.join(f'{row.numbers[thresholds[column]]:g}' for row in found)})"
            cells.append(cell)
        lines.append((title, "" if run == "base" else str(len(found)), *cells))
    return [f"### {table.title}", "", _markdown(("seeds", *table.columns), lines), ""]


def _every_seed(folder: Path, block: str) -> str:
    lines = []
    for title, run in MAIN_ROWS:
        for row in rows_of(folder, run, block):
            numbers = [f"{row.numbers[name]:.3f}" for name in EVERY_SEED]
            lines.append((title, "" if row.seed is None else str(row.seed), f"`{row.run}`", *numbers))
    return _markdown(("seed", "row", *EVERY_SEED), lines)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column, the rows' titles, has no head."""
    return markdown_table(("", *columns), ["---"] * (len(columns) + 1), rows)


def _cell(values: Sequence[float]) -> str:
    text = f"{np.mean(values):.3f}"
    return text if len(values) == 1 else f"{text} ±{np.std(values, ddof=1):.3f}"


def _pruned(share: Mapping[str, float]) -> str:
    return (
        f"Pruning by the base's own cosines at mean + one standard deviation keeps {share['kept']:.1%} of the pairs\n"
        f"and lowers the share of wrong ones from {share['wrong before']:.1%} to {share['wrong after']:.1%}."
    )


_SHOWN = (
    "F1", "mAP", "absent selected", "CaptionIoU, min-max", "CaptionIoU, p, chosen", "CaptionIoU of objects, p, chosen",
    "mIoU, words there", "mIoU, all words", "AUC per image", *MEMORY,
)  # fmt: skip


def _differences(folder: Path, block: str) -> str:
    (before,) = read_rows(folder, f"base.{block}")
    lines = []
    for title, run in MAIN_ROWS[1:]:
        if found := rows_of(folder, run, block):
            lines.append((title, *(_difference(difference(before, found, name)) for name in _SHOWN)))
    return _markdown(_SHOWN, lines)


def _difference(found: Difference) -> str:
    seeds = f" ({', '.join(f'{value:+.3f}' for value in found.seeds)})" if len(found.seeds) > 1 else ""
    return f"{found.mean:+.3f} ±{found.error:.3f}{seeds}"


Aim = tuple[Title, str, Mapping[str, int], Mapping[str, float]]


def _aims() -> list[Aim]:
    """Runs by which the aims are judged, the aim's title, what shall be better, and what may be so much worse."""
    paper, ours = ("paper-10", "paper-fitted"), ("negatives", "relative")
    names = {run: title for title, run in MAIN_ROWS}
    title_a, title_b = "Aim A, the paper's losses with nothing of ours", "Aim B, our recipe"
    ablations = {run: f"{title}, p with w 10, c .25" for table in ABLATION_TABLES for title, run in table.rows}
    aims: list[Aim] = [((names[run], f"{run}.values"), title_a, AIM_A, AIM_A_BOUNDS) for run in paper]
    aims += [
        ((names[run], f"{run}.maskclip"), title_a, {}, {"AUC per image": 0.0, "AUC per word": 0.0}) for run in paper
    ]
    title = "Aim A's measures of an ablation"
    aims += [((ablations[run], f"{run}.values"), title, AIM_A, AIM_A_BOUNDS) for run in ("only-tag", "true-words")]
    return aims + [((names[run], f"{run}.{block}"), title_b, AIM_B, AIM_B_BOUNDS) for run in ours for block in BLOCKS]


def _aim(folder: Path, row: Title, title: str, better: Mapping[str, int], bounds: Mapping[str, float]) -> list[str]:
    name, run = row
    block = run.rpartition(".")[2]
    found, bases = read_rows(folder, run), read_rows(folder, f"base.{block}")
    if not found or not bases:
        return []
    lines = []
    reached = 0
    for measure in (*better, *bounds):
        change = difference(bases[0], found, measure)
        if measure in better:
            asked, good = "better", change.is_better(better[measure])
        else:
            asked, good = f"at most {bounds[measure]:g} below", change.mean >= -bounds[measure]
        reached += good
        before = f"{bases[0].numbers[measure]:.3f}"
        lines.append((measure, before, _difference(change), asked, "yes" if good else "no"))
    total = len(better) + len(bounds)
    verdict = "Reached" if reached == total else f"Missed in {total - reached} of {total} measures"
    seeds = "1 seed" if len(found) == 1 else f"{len(found)} seeds"
    shown = _markdown(("before", "difference", "asked", "reached"), lines)
    return [f"### {title}: {name}, {block}", "", shown, "", f"{verdict}, by {seeds}.", ""]


@click.command(cls=Experiment)
@click.argument("rows", type=click.Path(path_type=Path, file_okay=False), default=ROWS / "mini")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The page.")
def main(rows: Path, out: Path) -> None:
    """Write the page of the rows in ROWS, by default the committed ones of `mini`."""
    text = to_markdown(rows)
    write_file(out, text)
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main(prog_name="python -m experiments.prove.tables")
