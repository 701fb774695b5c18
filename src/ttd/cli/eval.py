"""`ttd eval`: measure a model on a benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION, NameOf, SectionedCommand
from ttd.cli.options.data import EngineChoice, engine_options
from ttd.cli.options.model import ModelChoice, ProtocolChanges, model_options, protocol_changes, protocol_option
from ttd.cli.options.words import TaggerChoice, tagger_options
from ttd.cli.output import print_skipped, run_folder, start_logging, table, writable_folder
from ttd.registry import DATASETS, RULES, SCORES
from ttd.runs.results_file import json_line
from ttd.taggers import TAGGERS
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.evaluation.benchmark import Benchmark
    from ttd.evaluation.registry import Choices
    from ttd.evaluation.report.finished_run import FinishedRun
    from ttd.evaluation.report.tables import Table
    from ttd.model import TTD


_FOR_CLASSES = ("--classes", "--synonyms", "--label-orientation", "--known-classes")
_FOR_MASKS = ("--background", "--refine", "--sam-model", "--pamr-steps", "--pamr-dilations", "--pamr-grid")
_FOR_LABELS = ("--logit-scale", "--prob-threshold", "--area-threshold", "--label-scale")
_FOR_VIEWS = ("--size", "--window", "--stride", "--scales", "--flip", "--templates")
_FOR_TAGMASK = (
    *("--part", "--score", "--score-stop-words", "--shuffled", "--selection", "--percentile", "--negatives"),
    "--tagger",
)
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
    **dict.fromkeys(_FOR_MASKS, "masks"),
    **dict.fromkeys(_FOR_LABELS, "labels"),
    **dict.fromkeys((*_FOR_TAGMASK, *_FOR_TAGGERS), "parts"),
}
# Headings of the help, each with its options in order.
SECTIONS = {
    "Processes": ("--engine", "--ray-cpus", "--ray-gpus", "--ray-workers"),
    "Data and results": (
        *("--data", "--out", "--limit", "--allow-skips", "--images", "--cache", "--json", "--verbose", "--help"),
    ),
    "Model": (
        *("--model", "--adapter", "--adapter-scale", "--method", "--proxy-model", "--calibration", "--device"),
        "--dtype",
        "--text-cache",
    ),
    "Protocol": ("--protocol", *_FOR_VIEWS, *_FOR_MASKS),
    "Labels of pixels": _FOR_LABELS,
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
@protocol_option("the method's own")
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
    "--selection", "rules", type=NameOf(RULES.names), multiple=True, help="Also s_pixel by this rule; repeatable."
)
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
@engine_options
@click.option("--out", required=True, metavar="DIR", help="For results.json, tables, measurements and images.")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
@VERBOSE_OPTION
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
    engine: EngineChoice,
    changes: ProtocolChanges,
    **chosen: Any,
) -> int:
    """Measure a model on the benchmark NAME.

    \b
    ttd eval voc --data VOCdevkit/VOC2012 --model tcl --out runs/voc
    ttd eval tagmask --data cc3m_for_evaluation --model tcl --adapter TTD --out runs/captions
    ttd eval folder --data mine --model mini --protocol default --out runs/mine
    torchrun --nproc-per-node 8 -m ttd eval voc --data VOCdevkit/VOC2012 --model tcl --out runs/voc
    ttd eval voc --data VOCdevkit/VOC2012 --model tcl --out runs/voc --engine ray

    folder has images/, labels/ and classes.txt. Run the same command again after an
    interruption: what was measured is kept. Items that cannot be used are skipped and named, and the exit code is 1
    unless --allow-skips.
    """
    from ttd.evaluation.registry import open_benchmark
    from ttd.evaluation.runner import measure_into

    start_logging(verbose)
    _refuse_others(name, chosen["part"])
    executor = engine.open()
    ranks = executor.ranks
    words_by.check(chosen["taggers"])
    choices = _choices({**chosen, "protocol": chosen["protocol"] or model.own_protocol}, words_by, changes)
    # Opened once before the model is loaded, so that a wrong path is answered at once.
    open_benchmark(name, Path(root), choices)
    folder = run_folder(Path(out), *ranks)
    cache = writable_folder(Path(chosen["cache"])) if chosen["cache"] else None

    def settled(loaded: TTD) -> Choices:
        return replace(choices, protocol=chosen["protocol"] or loaded.encoder.default_protocol)

    def opened() -> tuple[TTD, Benchmark]:
        loaded = model.load()
        if cache is not None:
            loaded.keep_features(cache)
        return loaded, open_benchmark(name, Path(root), settled(loaded), loaded.encoder)

    loaded, benchmark = opened()
    done = measure_into(
        folder, benchmark, loaded, {"name": model.model, **model.settings()}, settled(loaded).protocol,
        choices=settled(loaded), limit=limit, executor=executor, elsewhere=opened if engine.is_ray else None,
    )  # fmt: skip
    if done is None:
        click.echo(
            f"Process {ranks.rank} of {ranks.world} is done; the one that ends last writes the result.", err=True
        )
        return 0
    if chosen["images"]:
        _write_images(done, benchmark, loaded, chosen["images"])
    _print_results(done, as_json)
    print_skipped(done.skipped, " in results.json")
    return 1 if len(done.skipped) > allow_skips else 0


def says_something(option: str, benchmark: str) -> bool:
    """Whether an option, "--refine", means anything for a benchmark."""
    taken: frozenset[str] = DATASETS.find(benchmark).choices
    return _FIELDS.get(option) is None or _FIELDS[option] in taken


def _refuse_others(name: str, part: str | None) -> None:
    """Raises `InputError` where an option was given that does not apply to this benchmark, or this part of it."""
    from ttd.errors import InputError

    ctx = click.get_current_context()
    assert isinstance(ctx.command, SectionedCommand)
    strange = [option for option in _FIELDS if not says_something(option, name)]
    strange += [*_FOR_TAGMASK[1:], *_FOR_TAGGERS] if part == "masks" else []
    if found := [option for option in ctx.command.given(ctx) if option in strange]:
        about = f"the {part} of {name}" if part and found[0] != "--part" else name
        raise InputError(f"{found[0]} does not apply to {about}: leave it out")


def _choices(chosen: dict[str, Any], words_by: TaggerChoice, changes: ProtocolChanges) -> Choices:
    from ttd.evaluation.registry import Choices

    return Choices(
        protocol=chosen["protocol"],
        given=changes.changes(),
        classes=chosen["classes"],
        synonyms=chosen["synonyms"],
        parts=(chosen["part"],) if chosen["part"] else Choices.parts,
        scores=chosen["scores"] or SCORES,
        stop_words=chosen["stop_words"],
        rules=chosen["rules"],
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


def _write_images(run: FinishedRun, benchmark: Benchmark, model: TTD, count: int) -> None:
    """`images.html`, where the benchmark shows any."""
    from ttd.evaluation.report.gallery import ImageSource, sections, write_images

    parts = sections([ImageSource(run.model, run.folder, benchmark, lambda: (model, benchmark))], count)
    if parts:
        write_images(run.folder / "images.html", f"{benchmark.name}: images", run.model, parts)


def table_text(found: Table) -> str:
    """A table for a terminal; published rows under other protocols are counted only."""
    from ttd.evaluation.report.formats import cells, head, left_out

    rows = (*found.rows, *found.published)
    lines = [found.title, table(head(found, rows), [cells(found, row) for row in rows])]
    if others := left_out(found):
        lines.append(f"({others}: ttd report shows them)")
    return "\n".join([*lines, *([f"All: {found.common}."] if found.common else [])])


def _print_results(run: FinishedRun, as_json: bool) -> None:
    """Our numbers next to the published ones."""
    from ttd.evaluation.report.tables import tables

    if as_json:
        click.echo(json_line(run.to_dict()))
    else:
        for one in tables([run]):
            click.echo(table_text(one) + "\n")
        for note in run.results["notes"]:
            click.echo(printable(note))
    found = run.results
    click.echo(
        f"{found['measured']} of {found['items']} items measured; all is in {printable(str(run.folder))}", err=True
    )
