"""`ttd eval`: measure a model on a benchmark."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import (
    ModelChoice,
    NameOf,
    ProtocolChanges,
    model_options,
    protocol_changes,
    protocol_option,
    start_logging,
)
from ttd.cli.output import print_skipped, printable, run_folder, table, writable_folder
from ttd.cli.sections import SectionedCommand
from ttd.cli.tagger_options import TaggerChoice, tagger_options
from ttd.documents import read_json
from ttd.errors import TTDError
from ttd.registry import DATASETS, SCORES
from ttd.results_file import RunRecords, json_line
from ttd.schema import mapping
from ttd.taggers import TAGGERS

if TYPE_CHECKING:
    from ttd.evaluation.benchmark import Benchmark
    from ttd.evaluation.runner import Outcome
    from ttd.model import TTD


def run_settings(benchmark: Benchmark, model: ModelChoice, loaded: TTD, protocol: str) -> dict[str, Any]:
    """What decides the result: a run goes on only where all of this is the same."""
    return {
        "benchmark": benchmark.name,
        "data": {"root": str(benchmark.root.resolve()), "fingerprint": benchmark.fingerprint()},
        "model": {
            "name": model.model,
            "fingerprint": loaded.encoder.fingerprint(),
            "encoder": loaded.encoder.settings(),
            **model.settings(),
        },
        "protocol": protocol,
        "options": {task: asdict(options) for task, options in benchmark.options.items()},
        "task": benchmark.settings(),
    }


def write_results(folder: Path, outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes `results.json` and the tables; gives what `results.json` holds."""
    from ttd.evaluation.runner import write_outcome

    write_outcome(folder, outcome, facts)
    found: dict[str, Any] = read_json(folder / "results.json", mapping())
    return found


def skipped_of(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Id and reason of the items that could not be used."""
    return [(item["id"], item["reason"]) for item in results["skipped"]]


_FOR_CLASSES = ("--classes", "--synonyms", "--label-orientation", "--known-classes")
_FOR_MASKS = ("--background", "--refine", "--sam-model")
_FOR_TAGMASK = ("--part", "--score", "--score-stop-words", "--shuffled", "--percentile", "--negatives", "--tagger")
_FOR_TAGGERS = (
    *("--spacy-model", "--llm-url", "--llm-model", "--llm-prompt", "--llm-request", "--llm-ignore-others"),
    *("--llm-at-once", "--llm-timeout", "--llm-retries", "--llm-cache"),
)
# What each option that not every benchmark takes is called in `ttd.evaluation.registry.BenchmarkEntry.choices`.
_FIELDS = {
    "--classes": "classes",
    "--synonyms": "synonyms",
    "--label-orientation": "label_orientation",
    "--known-classes": "known_classes",
    "--split": "split",
    "--split-by": "split_by",
    "--background": "background",
    "--refine": "refine",
    "--sam-model": "sam_model",
    **dict.fromkeys((*_FOR_TAGMASK, *_FOR_TAGGERS), "parts"),
}
# Headings of the help, each with its options in order.
SECTIONS = {
    "Data and results": (
        *("--data", "--out", "--limit", "--allow-skips", "--images", "--cache", "--json", "--verbose", "--help"),
    ),
    "Model": (
        "--model",
        "--adapter",
        "--adapter-scale",
        "--method",
        "--proxy-model",
        "--calibration",
        "--device",
        "--dtype",
    ),
    "Protocol": ("--protocol", "--size", *_FOR_MASKS),
    "Benchmarks of classes": _FOR_CLASSES,
    "refcoco, refcoco+, refcocog, coco-80": ("--split", "--split-by"),
    "tagmask": _FOR_TAGMASK,
    "tagmask: taggers of the text": _FOR_TAGGERS,
}


def skips_allowed(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    """How many items may be skipped; infinity for "all"."""
    if value != "all" and not value.isdecimal():
        raise click.BadParameter(
            f"{value!r} is not a number of items: write --allow-skips, or --allow-skips 3.", ctx, parameter
        )
    return float("inf") if value == "all" else float(value)


@click.command("eval", cls=SectionedCommand, sections=SECTIONS, names=DATASETS.names)
@click.argument("name", metavar="NAME", type=NameOf(DATASETS.names))
@click.option("--data", "root", required=True, metavar="ROOT", help="Folder of the data set.")
@model_options
@protocol_option("paper")
@protocol_changes
@click.option("--classes", metavar="FILE", help="Another class list (a class per line; synonyms after ;).")
@click.option("--synonyms", is_flag=True, help="Ask for all names of a class; the best one counts.")
@click.option(
    "--label-orientation",
    type=click.Choice(["upright", "stored"]),
    default="upright",
    show_default=True,
    help="How labels were drawn on photos with EXIF orientation, where they fit both ways.",
)
@click.option("--known-classes", is_flag=True, help="Ask each image only for the classes that are in it.")
@click.option("--split", metavar="NAME", help="refcoco…: val, testA, testB or test; coco-80: val2014 or val2017.")
@click.option("--split-by", metavar="WHO", help="refcoco…: whose splits: unc, google or umd.")
@click.option("--part", type=click.Choice(["tags", "masks"]), help="Only this part.")
@click.option("--score", "scores", type=click.Choice(SCORES), multiple=True, help="Only this score; repeatable.")
@click.option(
    "--percentile",
    "percentiles",
    type=click.FloatRange(0.0, 100.0),
    multiple=True,
    help="Also s_pixel as `ttd tag --selection negatives --percentile` selects by it; repeatable.",
)
@click.option("--negatives", metavar="SOURCE", help="Captions, list or a file, as for `ttd tag`.")
@click.option("--score-stop-words", "stop_words", is_flag=True, help="Score stop words; else they are never selected.")
@click.option(
    "--tagger",
    "taggers",
    type=click.Choice(TAGGERS),
    multiple=True,
    help="Also nouns, or a language model's words, from the text alone; repeatable.",
)
@tagger_options
@click.option("--shuffled/--no-shuffled", default=True, help="Also score each image's neighbour's caption.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items.")
@click.option(
    "--allow-skips",
    is_flag=False,
    flag_value="all",
    default="0",
    callback=skips_allowed,
    metavar="[N]",
    help="Exit code 0 although up to N items (without a number: any) could not be used.",
)
@click.option(
    "--images",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    metavar="N",
    help="images.html shows so many of the best, median and worst items; 0: no page.",
)
@click.option("--cache", metavar="DIR", help="Keep images' features there: other thresholds need no encoder.")
@click.option("--out", required=True, metavar="DIR", help="For results.json, tables, measurements and images.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
@click.option("--verbose", "-v", is_flag=True, help="Say more on stderr.")
def evaluate(
    name: str,
    root: str,
    model: ModelChoice,
    out: str,
    limit: int | None,
    allow_skips: float,
    as_json: bool,
    verbose: bool,
    words_by: TaggerChoice,
    changes: ProtocolChanges,
    **chosen: Any,
) -> int:
    """Measure a model on the benchmark NAME.

    \b
    ttd eval voc --data VOCdevkit/VOC2012 --model tcl --out runs/voc
    ttd eval tagmask --data cc3m_for_evaluation --model tcl --adapter TTD --out runs/captions
    ttd eval folder --data mine --model mini --protocol default --out runs/mine
    torchrun --nproc-per-node 8 -m ttd eval voc --data VOCdevkit/VOC2012 --model tcl --out runs/voc

    folder has images/, labels/ and classes.txt. Run the same command again after an
    interruption: what was measured is kept. Items that cannot be used are skipped and named, and the exit code is 1
    unless --allow-skips.
    """
    from ttd.evaluation.registry import open_benchmark
    from ttd.evaluation.runner import run
    from ttd.runs import Ranks

    start_logging(verbose)
    _refuse_others(name, chosen["part"])
    ranks = Ranks.here()
    words_by.check(chosen["taggers"])
    choices = _choices(chosen, words_by, changes)
    # Opened once before the model is loaded, so that a wrong path is answered at once.
    open_benchmark(name, Path(root), choices)
    folder = run_folder(Path(out), *ranks)
    cache = writable_folder(Path(chosen["cache"])) if chosen["cache"] else None
    loaded = model.load()
    if cache is not None:
        loaded.keep_features(cache)
    benchmark = open_benchmark(name, Path(root), choices, loaded.encoder)
    settings = run_settings(benchmark, model, loaded, choices.protocol)
    with RunRecords(folder, ranks).open(settings) as store:
        outcome = run(loaded, benchmark, store, limit, ranks=ranks)
    if outcome is None:
        click.echo(
            f"Process {ranks.rank} of {ranks.world} is done; the one that ends last writes the result.", err=True
        )
        return 0
    record = {**read_json(store.run_path, mapping()), "choices": asdict(choices)}
    results = _write(folder, benchmark, loaded, outcome, record)
    if chosen["images"]:
        _write_images(folder, benchmark, loaded, chosen["images"])
    _print_results(results, model, as_json, folder)
    print_skipped(outcome.skipped, " in results.json")
    return 1 if len(outcome.skipped) > allow_skips else 0


def _refuse_others(name: str, part: str | None) -> None:
    """Raises `InputError` where an option was given that says nothing about this benchmark, or this part of it."""
    from ttd.errors import InputError

    ctx = click.get_current_context()
    assert isinstance(ctx.command, SectionedCommand)
    taken: frozenset[str] = DATASETS.find(name).choices
    strange = [option for option, field in _FIELDS.items() if field not in taken]
    strange += [*_FOR_TAGMASK[1:], *_FOR_TAGGERS] if part == "masks" else []
    if found := [option for option in ctx.command.given(ctx) if option in strange]:
        about = f"the {part} of {name}" if part and found[0] != "--part" else name
        raise InputError(f"{found[0]} says nothing about {about}: leave it out")


def _choices(chosen: dict[str, Any], words_by: TaggerChoice, changes: ProtocolChanges) -> Any:
    from ttd.evaluation.registry import Choices

    return Choices(
        protocol=chosen["protocol"],
        given=changes.changes(),
        classes=chosen["classes"],
        synonyms=chosen["synonyms"],
        parts=(chosen["part"],) if chosen["part"] else Choices.parts,
        scores=chosen["scores"] or SCORES,
        stop_words=chosen["stop_words"],
        percentiles=chosen["percentiles"],
        negatives=chosen["negatives"],
        shuffled=chosen["shuffled"],
        taggers=chosen["taggers"],
        spacy_model=words_by.spacy_model,
        llm=words_by.llm,
        split=chosen["split"],
        split_by=chosen["split_by"],
        label_orientation=chosen["label_orientation"],
        known_classes=chosen["known_classes"],
    )


def _domain_note(model: TTD, benchmark: Benchmark, looked_at: int = 50) -> str:
    """What is wrong where many of the benchmark's images do not look like those that a small model learned from."""
    from ttd.images import read_image

    if model.encoder.domain is None:
        return ""
    samples = benchmark.samples[:: max(1, len(benchmark.samples) // looked_at)]
    found = []
    for sample in samples:
        # What cannot be read is counted where it is measured.
        with suppress(TTDError, OSError):
            found.append(model.notice(read_image(sample.image)))
    notices = [notice for notice in found if notice]
    return f"{len(notices)} of {len(found)} images that were looked at: {notices[0]}." if notices else ""


def _write(folder: Path, benchmark: Benchmark, model: TTD, outcome: Outcome, record: dict[str, Any]) -> dict[str, Any]:
    """`results.json`, the tables and the plot; gives what `results.json` holds."""
    from dataclasses import replace

    from ttd.evaluation.registry import sample_note
    from ttd.evaluation.tasks.tag_tables import plot_sweep

    notes = [sample_note(benchmark.name, outcome.measured, benchmark.settings()), _domain_note(model, benchmark)]
    if outcome.items < (every := len(benchmark.samples)):
        notes.append(f"Only the first {outcome.items} of {every} items were asked about (--limit).")
    result = replace(outcome.result, notes=(*filter(None, notes), *outcome.result.notes))
    found = write_results(folder, replace(outcome, result=result), {"benchmark": benchmark.name, **record})
    if sweep := result.rows.get("sweep"):
        gap = next((row for row in result.rows["tags"] if row["tagger"] == "s_pixel"), None)
        plot_sweep(sweep, gap, folder / "sweep.png")
    return found


def _write_images(folder: Path, benchmark: Benchmark, model: TTD, count: int) -> None:
    """`images.html`, where the benchmark shows any."""
    from ttd.evaluation.report.finished_run import read_run
    from ttd.evaluation.report.gallery import ImageSource, sections, write_images

    title = read_run(folder).title
    parts = sections([ImageSource(title, folder, benchmark, lambda: (model, benchmark))], count)
    if parts:
        write_images(folder / "images.html", f"{benchmark.name}: images", title, parts)


def _print_results(results: dict[str, Any], model: ModelChoice, as_json: bool, folder: Path) -> None:
    """The numbers beside the published ones."""
    from ttd.evaluation.report.tables import comparisons

    if as_json:
        click.echo(json_line({name: results[name] for name in ("benchmark", "items", "measured", "numbers", "notes")}))
    else:
        title = model.model + (f" + {Path(model.adapter).name}" if model.adapter else "")
        for comparison in comparisons([(title, results)]):
            click.echo(f"{comparison.title}\n{table(comparison.head, comparison.rows)}\n")
        for note in results["notes"]:
            click.echo(printable(note))
    click.echo(
        f"{results['measured']} of {results['items']} items measured; all is in {printable(str(folder))}", err=True
    )
