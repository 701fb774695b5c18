"""`ttd data prepare`: derived label maps from official annotations."""

from __future__ import annotations

from pathlib import Path

import click

from ttd.cli.output import printable, writable_folder


@click.command()
@click.argument("name", type=click.Choice(["coco-object"]))
@click.option("--annotations", required=True, metavar="FILE", help="instances_val2017.json (or 2014)")
@click.option("--out", required=True, metavar="DIR", help="For the label maps: ROOT/annotations/val2017")
def prepare(name: str, annotations: str, out: str) -> None:
    """Make the label maps of a benchmark from its official annotations.

    \b
    ttd data prepare coco-object --annotations annotations/instances_val2017.json --out annotations/val2017

    Writes ID_instanceTrainIds.png for every picture: 0 is background, 1 to 80 are the objects. Label maps that are
    already there are kept.
    """
    from ttd.benchmarks.coco_annotations import CocoMasks
    from ttd.benchmarks.coco_labels import write_label_maps

    count = write_label_maps(CocoMasks(Path(annotations)), writable_folder(Path(out)))
    click.echo(f"{count} label maps in {printable(out)}")
