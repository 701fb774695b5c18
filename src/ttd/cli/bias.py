"""`ttd bias`: how much one word dominates its caption, before and after an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION
from ttd.cli.options.model import ModelChoice, model_options, protocol_option
from ttd.cli.output import print_skipped, run_folder, start_logging, table
from ttd.runs.results_file import RunRecords, json_line
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.evaluation.tasks.bias import SingleTagBias
    from ttd.model import TTD

COLUMNS = (
    "map entropy",
    "map top share",
    "covered",
    "all covered",
    "outside",
    "score entropy",
    "score top share",
)


@click.command()
@click.option("--data", "root", required=True, metavar="ROOT", help="A TagMask set.")
@model_options
@protocol_option("paper")
@click.option(
    "--regions",
    type=click.Choice(["auto", "truth", "own"]),
    default="auto",
    show_default=True,
    help="Where a word is: the set's masks/ID/WORD.png (truth), or the model's own mask of the word.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N captions.")
@click.option(
    "--images",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Draw so many of the most even, median and most biased captions.",
)
@click.option("--out", required=True, metavar="DIR", help="For bias.md, images, and before/ and after/.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
@VERBOSE_OPTION
def bias(
    root: str,
    model: ModelChoice,
    protocol: str,
    regions: str,
    limit: int | None,
    images: int,
    out: str,
    as_json: bool,
    verbose: bool,
) -> int:
    """Measure single tag bias: how unevenly the true words of a caption share its map and its score.

    \b
    ttd bias --data set --model mini --protocol default --adapter runs/ttd --out runs/bias

    With --adapter the model is measured without it ("before") and with it ("after"). docs/bias.md defines the
    measures. Run the same command again after an interruption: what was measured is kept.
    """
    from ttd.evaluation.datasets.tagmask import read_tagmask
    from ttd.evaluation.runner import measure_into
    from ttd.evaluation.tasks.bias import SingleTagBias
    from ttd.inference.protocols import options

    start_logging(verbose)
    benchmark = SingleTagBias(read_tagmask(Path(root)), options(protocol, "tags"), options(protocol, "masks"), regions)
    folder = run_folder(Path(out))
    asked = {"before": replace(model, adapter=None), "after": model} if model.adapter else {"before": model}
    loaded = {name: one.load() for name, one in asked.items()}
    runs = {}
    for name, one in asked.items():
        named = {"name": one.model, **one.settings()}
        run = measure_into(folder / name, benchmark, loaded[name], named, protocol, limit=limit)
        assert run is not None  # one process measures all
        runs[name] = run
    if images:
        _draw(benchmark, loaded, folder, images)
    _print_results({name: run.results for name, run in runs.items()}, folder, as_json)
    # What one of the models could not use is missing from its own numbers alone.
    skipped = list(dict.fromkeys(item for run in runs.values() for item in run.skipped))
    print_skipped(skipped, " in results.json")
    return 1 if skipped else 0


def _draw(benchmark: SingleTagBias, models: dict[str, TTD], folder: Path, count: int) -> None:
    """`bias-even-1.png` and so on: chosen by the first model's map entropy, so that no choice flatters training."""
    from ttd.evaluation.report.bias_figure import draw
    from ttd.evaluation.report.panels import best_median_worst
    from ttd.evaluation.tasks.bias import bias as measures
    from ttd.evaluation.tasks.bias import of_record
    from ttd.viz.overlays import save_png

    numbers = {sample.id: number for number, sample in enumerate(benchmark.samples)}
    lines = RunRecords(folder / "before").records(numbers, benchmark.check)
    entropies = {line["id"]: measures(*of_record(line))["map entropy"] for line in lines}
    names = {"best": "even", "median": "median", "worst": "biased"}
    for group, ids in best_median_worst(entropies, count).items():
        for rank, name in enumerate(ids, 1):
            save_png(draw(benchmark, models, numbers[name]), folder / f"bias-{names[group]}-{rank}.png")


def _print_results(results: Mapping[str, Mapping[str, Any]], folder: Path, as_json: bool) -> None:
    """The table, on the terminal and as `bias.md`."""
    from ttd.evaluation.report.formats import markdown_table
    from ttd.files import write_file

    rows = [(name, *(_cell(found["numbers"][column]) for column in COLUMNS)) for name, found in results.items()]
    first = results["before"]["numbers"]
    even, outside = first["even share"], first["whole image: outside"]
    whole = {"map entropy": 1.0, "map top share": even, "covered": 1.0, "all covered": 1.0, "outside": outside}
    rows.append(("whole image", *(_cell(whole.get(column)) for column in COLUMNS)))
    perfect = {**whole, "outside": 0.0, "score entropy": 1.0, "score top share": even}
    rows.append(("perfect", *(_cell(perfect[column]) for column in COLUMNS)))
    notes = [f"{results['before']['measured']} captions.", *results["before"]["notes"]]
    head = ("", *COLUMNS)
    text = markdown_table(head, ("---", *("---:" for _ in COLUMNS)), rows)
    write_file(folder / "bias.md", f"# Single tag bias\n\n{text}\n\n{' '.join(notes)}\n")
    if as_json:
        click.echo(json_line({name: found["numbers"] for name, found in results.items()}))
    else:
        click.echo(table(head, rows))
        for note in notes:
            click.echo(printable(note))
    click.echo(f"all is in {printable(str(folder))}", err=True)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
