"""`ttd data`: check image-text pairs, pack them into shards, choose their words beforehand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click

from ttd.cli.agreement import agreement
from ttd.cli.data_options import (
    Model,
    Pairs,
    model_options,
    pair_options,
    pairs_bar,
    tell_damage,
    write_record,
)
from ttd.cli.options import SCORES
from ttd.cli.output import printable, writable_folder
from ttd.cli.prepare import prepare
from ttd.cli.results_file import json_line
from ttd.cli.tagmask_from_coco import tagmask_from_coco
from ttd.errors import InputError


@click.group()
def data() -> None:
    """Image-text pairs: check them, pack a folder into shards, choose their words beforehand."""


data.add_command(prepare)
data.add_command(tagmask_from_coco)
data.add_command(agreement)


@data.command()
@pair_options
@click.option("--out", metavar="FILE", help="For the report (JSON) that names every damaged pair.")
def check(pairs: Pairs, out: str | None) -> int:
    """Read and decode every pair, and say which are damaged.

    \b
    ttd data check 'cc3m/{00000..00331}.tar' --out damage.json
    ttd data check captions_val2017.json --images val2017
    """
    from ttd.data.damage import DamagedPair
    from ttd.data.shard_jobs import read_ahead

    source = pairs.open()
    report = source.report(pairs.max_damaged)
    captions = 0
    with pairs_bar(len(source)) as bar:
        for batch in read_ahead(lambda i: len(source[i].captions), range(len(source)), 64, pairs.threads):
            for one in batch:
                if isinstance(one, DamagedPair):
                    report.add(one)
                else:
                    captions += one
            bar.update(len(batch))
    good = report.total - report.to_dict()["damaged"]
    if pairs.as_json:
        click.echo(json_line({**report.to_dict(), "good": good, "captions": captions, "files": report.shards}))
    else:
        click.echo(f"{good:,} of {report.total:,} pairs are good, {captions:,} captions, {report.shards:,} files")
    return tell_damage(report, Path(out) if out else None)


@data.command()
@pair_options
@click.option("--out", required=True, metavar="DIR", help="For the shards.")
@click.option("--per-shard", type=click.IntRange(1), default=10_000, show_default=True, help="Pairs in each.")
@click.option("--prefix", default="", metavar="TEXT", help="Beginning of the shards' names.")
def pack(pairs: Pairs, out: str, per_shard: int, prefix: str) -> int:
    """Pack pictures and a captions file (CSV, TSV, JSONL, COCO JSON) into tar shards.

    \b
    ttd data pack captions_val2017.json --images val2017 --out shards
    ttd data pack pairs.csv --out shards            (columns: image, caption)

    Captions of one picture stay together. Pictures are copied as they are, after a check; damaged ones are
    left out and named in OUT/damage.json.
    """
    from ttd.data.packing import pack as write_shards

    place = writable_folder(Path(out))
    source = pairs.open()
    with pairs_bar(len(source)) as bar:
        shards, report = write_shards(
            source,
            place,
            per_shard=per_shard,
            prefix=prefix,
            limit=pairs.max_damaged,
            threads=pairs.threads,
            progress=bar.update,
        )
    packed = report.total - report.to_dict()["damaged"]
    if pairs.as_json:
        click.echo(json_line({"pairs": packed, "shards": [str(path) for path in shards]}))
    else:
        click.echo(f"packed {packed:,} pairs into {len(shards):,} shards in {printable(str(place))}")
    return tell_damage(report, place / "damage.json")


@data.command()
@pair_options
@model_options
@click.option("--out", required=True, metavar="DIR", help="For the tables that training reads.")
@click.option("--keep", metavar="FILE", help="Only the pairs of this keep-list.")
@click.option("--score", type=click.Choice(SCORES), default="s_pixel", show_default=True)
@click.option("--selection", metavar="NAME", help="gap, softmax, min-max or share; by default the score's own.")
@click.option("--threshold", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option(
    "--drop-stop-words", is_flag=True, help="Leave stop words out; kept otherwise, as in the paper's training."
)
@click.option("--preset", metavar="NAME", help="How pictures are looked at, for example paper-tags.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="Short side to which pictures are resized.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Pictures at once.")
def tag(
    pairs: Pairs,
    model: Model,
    out: str,
    keep: str | None,
    score: str,
    selection: str | None,
    threshold: float,
    drop_stop_words: bool,
    preset: str | None,
    size: int | None,
    batch: int,
) -> int:
    """Write the words that a model selects from every caption, for training to read.

    \b
    ttd data tag 'cc3m/{00000..00331}.tar' --keep pruned/keep.parquet --model tcl --out tags
    ttd data tag shards/ --model mini --score s_image --drop-stop-words --out tags

    One Parquet file per shard: shard, key, tags (for every caption a list of words). Continues after an
    interruption; under torchrun every process takes its share of the shards.
    """
    from ttd.data.ranks import ranks
    from ttd.data.shard_jobs import run_shards, whole_report

    place = writable_folder(Path(out))
    rank, world = ranks()
    source = pairs.open(keep)
    given: dict[str, Any] = {"preset": preset, "size": size}
    from ttd.data.chosen_words import TagJob
    from ttd.inference import resolve

    options = {name: value for name, value in given.items() if value is not None}
    resolve(**options)
    job = TagJob(
        model.load(),
        score=score,
        selection=selection,
        threshold=threshold,
        stop_words=drop_stop_words,
        batch=batch,
        threads=pairs.threads,
        options=options,
        settings={**model.settings(), "keep": _digest(keep)},
    )
    tables = place / "tags"
    limit = pairs.max_damaged
    with pairs_bar(-(-len(source) // world), rank) as bar:
        report = run_shards(job, source, tables, limit=limit, rank=rank, world=world, progress=bar.update)
    whole = whole_report(job, source, tables, limit)
    if whole is None:
        click.echo(f"Rank {rank} is done; other ranks still work.", err=True)
        tell_damage(report, None)
        return 0
    write_record(place / "tags.json", {"model": model.model, "settings": job.settings})
    if pairs.as_json:
        click.echo(json_line({"pairs": len(source), "tags": str(tables)}))
    else:
        click.echo(f"wrote {printable(str(tables))} for {len(source):,} pairs in {len(source.shards):,} files")
    code = tell_damage(whole, place / "damage.json")
    return code if world == 1 else 0  # torchrun takes any other code for a crash


def _digest(path: str | None) -> str | None:
    """Tells keep-lists apart."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from None
