"""`ttd data tag`: choose the words of captions before training, into a side file or new shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.data_browse import RECORD
from ttd.cli.options.data import EngineChoice, Pairs, Trial, engine_options, pair_options, trial_options
from ttd.cli.options.model import SIZE_OPTION, ModelChoice, optional_model_options, protocol_option
from ttd.cli.options.words import SelectionChoice, TaggerChoice, selection_options, tagger_options
from ttd.cli.output import pairs_bar, print_bad_samples, run_folder, write_record
from ttd.errors import InputError
from ttd.registry import SCORES, TABLE_FORMS
from ttd.runs.results_file import json_line
from ttd.taggers import TAGGERS
from ttd.text.words import UNSPACED_REMEDY, printable

if TYPE_CHECKING:
    from ttd.data.sources import PairSource
    from ttd.data.tag_table import Chooser

_TEXTS_AT_ONCE = 256


@click.command()
@pair_options
@optional_model_options
@click.option("--tagger", type=click.Choice(TAGGERS), help="Choose by the text alone, without --model.")
@tagger_options
@click.option("--out", metavar="DIR", help="For the tables that training reads.")
@click.option("--shards", metavar="DIR", help="In place of --out: for new shards that carry the words.")
@click.option("--per-shard", type=click.IntRange(1), default=10_000, show_default=True, help="Pairs in each, at most.")
@click.option("--keep", metavar="FILE", help="Only the pairs of this keep-list.")
@click.option("--score", type=click.Choice(SCORES), default="s_pixel", show_default=True)
@selection_options
@click.option(
    "--drop-stop-words", is_flag=True, help="Leave stop words out; kept otherwise, as in the paper's training."
)
@click.option(
    "--form",
    type=click.Choice(TABLE_FORMS),
    default=TABLE_FORMS[0],
    show_default=True,
    help="A row a token, or a pair.",
)
@protocol_option()
@SIZE_OPTION
@click.option("--batch", type=click.IntRange(1), help="Pairs at once; by default 16, with --tagger 256.")
@trial_options
@engine_options
def tag(
    engine: EngineChoice,
    trial: Trial,
    pairs: Pairs,
    model: ModelChoice,
    tagger: str | None,
    words_by: TaggerChoice,
    out: str | None,
    shards: str | None,
    per_shard: int,
    keep: str | None,
    form: str,
    batch: int | None,
    selection: SelectionChoice,
    **how: Any,
) -> int:
    """Choose the words of every caption, by a model or a tagger of the text, for training to read.

    \b
    ttd data tag 'cc3m/{00000..00331}.tar' --keep pruned/keep.parquet --model tcl --out tags
    ttd data tag shards/ --model mini --score s_image --drop-stop-words --out tags
    ttd data tag shards/ --model mini --selection negatives --percentile 90 --out tags
    ttd data tag shards/ --tagger spacy --shards tagged
    ttd data tag shards/ --tagger llm --llm-url http://localhost:8000/v1 --llm-model qwen --out tags

    --out: one Parquet file per shard with a row for every token of every caption (its score, whether it was selected),
    for queries, `ttd data browse OUT` and `ttd train --tags OUT/tags`. --shards: also new tar shards with the selected
    words in their .json, for `ttd train DIR --tags inside`.
    Continues after an interruption; under torchrun every process takes its share of the shards, with --engine ray every
    worker of a cluster.
    """
    from ttd.data.shard_jobs import LateJob, ShardJob, run_shards, whole_report

    words_by.check((tagger,) if tagger else ())
    executor = engine.open()
    rank, world = executor.ranks
    place = _place(out, shards) if trial.dry_run else run_folder(_place(out, shards), rank, world)
    source = pairs.open(keep, trial.limit)
    at_once = batch or (_TEXTS_AT_ONCE if tagger else 16)
    choose: Callable[[], Chooser[Any]]
    if tagger:
        _check_text_alone(tagger)
        choose = partial(_text_chooser, tagger, words_by, how, look=shards is not None)
    else:
        choose = partial(_model_chooser, model, _with_negatives(model, selection, how, source, rank), how, at_once)
    settings = {"keep": _digest(keep), **trial.settings()}

    def make() -> ShardJob:
        from ttd.data.tag_table import TagTableJob

        return TagTableJob(choose(), form=form, batch=at_once, threads=pairs.threads, settings=settings)

    job = LateJob(make) if engine.is_ray and not trial.dry_run else make()
    if trial.dry_run:
        trial.tell(job, source, at_once, world, as_json=pairs.as_json)
        return 0
    tables, limit = place / "tags", pairs.max_bad_samples
    with pairs_bar(-(-len(source) // world), rank) as bar:
        report = run_shards(job, source, tables, limit=limit, executor=executor, progress=bar.update)
    if (unspaced := report.counts["unspaced_captions"]) and not tagger:
        click.echo(f"{unspaced:,} captions: {UNSPACED_REMEDY}", err=True)
    if report.unknown:
        common = ", ".join(printable(word) for word, _ in report.unknown.most_common(3))
        line = f"{report.unknown.total():,} words are outside this model's vocabulary (is_unknown), such as {common}"
        click.echo(line, err=True)
    written: list[Path] = []
    if shards:
        from ttd.data.packing import TaggedShards

        writer = TaggedShards(source, tables, place, job.settings, per_shard=per_shard, threads=pairs.threads)
        with pairs_bar(-(-len(source) // world), rank) as bar:
            bar.set_description("writing shards")
            for number, paths in executor.map(writer.write, range(len(source.shards))):
                written += paths
                bar.update(len(source.indices(number)))
    whole = whole_report(job, source, tables, limit)
    if whole is None:
        click.echo(f"Rank {rank} is done; other ranks are still running.", err=True)
        print_bad_samples(report, None)
        return 0
    made_of = {
        "sources": pairs.named(),
        "images": pairs.images and os.path.abspath(pairs.images),
    }
    write_record(place / RECORD, {"model": model.model or None, **made_of, "settings": job.settings})
    _tell(pairs, len(source), len(source.shards), tables, written, place if shards else None)
    code = print_bad_samples(whole, place / "damage.json")
    return code if world == 1 else 0  # torchrun takes any other code for a crash


def _place(out: str | None, shards: str | None) -> Path:
    if (out is None) == (shards is None):
        raise InputError("give --out for tables of words, or --shards for new shards that carry them")
    return Path(out or shards or "")


def _with_negatives(
    model: ModelChoice, selection: SelectionChoice, how: dict[str, Any], source: PairSource, rank: int
) -> SelectionChoice:
    """With what words are compared with, taken from the captions once for all processes."""
    from ttd.data.tag_table import some_captions

    if not model.model:
        raise InputError("give --model, whose words are taken, or --tagger for words by the text alone")
    if not selection.compares:
        return selection
    words, line = selection.find_negatives(some_captions(source), how["drop_stop_words"])
    if rank == 0:
        click.echo(printable(line), err=True)
    return replace(selection, words=words)


def _model_chooser(model: ModelChoice, selection: SelectionChoice, how: dict[str, Any], batch: int) -> Chooser[Any]:
    from ttd.data.tag_table import ModelChooser
    from ttd.inference.protocols import options

    size: dict[str, Any] = {} if how["size"] is None else {"size": how["size"]}
    looked = options(how["protocol"], "tags", **size, stop_words=how["drop_stop_words"])
    return ModelChooser(
        model.load(),
        selection=selection.selection(how["score"]),
        batch=batch,
        options=looked,
        settings=model.settings(),
    )


def _check_text_alone(tagger: str) -> None:
    """Raises `InputError` where an option was given that belongs to a model."""
    given = click.get_current_context().get_parameter_source
    names = ("model", "adapter", "score", "selection_name", "threshold", "percentile", "negatives", "protocol", "size")
    for name in names:
        if given(name) is click.core.ParameterSource.COMMANDLINE:
            told = f"--{name.removesuffix('_name')} belongs to a model, and --tagger {tagger} reads the text alone"
            raise InputError(f"{told}: leave one out")


def _text_chooser(tagger: str, words_by: TaggerChoice, how: dict[str, Any], *, look: bool) -> Chooser[Any]:
    from ttd.data.tag_table import TextChooser
    from ttd.taggers import open_tagger

    opened = open_tagger(tagger, words_by.spacy_model, words_by.llm)
    return TextChooser(opened, stop_words=how["drop_stop_words"], look=look)


def _tell(pairs: Pairs, count: int, files: int, tables: Path, written: list[Path], shards: Path | None) -> None:
    if pairs.as_json:
        told = {"pairs": count, "tags": str(tables)}
        click.echo(json_line({**told, "shards": [str(path) for path in written]} if shards else told))
        return
    click.echo(f"wrote {printable(str(tables))} for {count:,} pairs in {files:,} files")
    if shards:
        click.echo(f"wrote {len(written):,} shards with words in {printable(str(shards))}")


def _digest(path: str | None) -> str | None:
    """Tells keep-lists apart."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from None
