"""`ttd data`: check image-text pairs, pack them into shards, choose their words beforehand."""

from __future__ import annotations

from pathlib import Path

import click

from ttd.cli.agreement import agreement
from ttd.cli.data_options import Pairs, pair_options, pairs_bar, tell_damage
from ttd.cli.data_tag import tag
from ttd.cli.output import printable, writable_folder
from ttd.cli.prepare import prepare
from ttd.cli.results_file import json_line
from ttd.cli.tagmask_from_coco import tagmask_from_coco


@click.group()
def data() -> None:
    """Image-text pairs: check them, pack a folder into shards, choose their words beforehand."""


data.add_command(prepare)
data.add_command(tagmask_from_coco)
data.add_command(tag)
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
