"""`ttd data prepare`: derived label maps from official annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ttd.cli.output import printable, tell_skipped, writable_folder
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.benchmarks.making_maps import MapJob

NAMES = ("coco-object", "coco-stuff", "cityscapes", "context59", "context60")


@click.command()
@click.argument("name", type=click.Choice(NAMES))
@click.option("--annotations", required=True, metavar="PATH", help="The official annotations: a file or a folder.")
@click.option("--out", required=True, metavar="DIR", help="For the label maps.")
@click.option("--labels", metavar="FILE", help="context59, context60: what the numbers mean (lines of number: name).")
def prepare(name: str, annotations: str, out: str, labels: str | None) -> int:
    """Make the label maps of a benchmark from its official annotations.

    \b
    ttd data prepare coco-object --annotations annotations/instances_val2017.json --out annotations/val2017
    ttd data prepare coco-stuff --annotations stuffthingmaps/val2017 --out annotations/val2017
    ttd data prepare cityscapes --annotations gtFine/val --out gtFine/val
    ttd data prepare context59 --annotations trainval --out VOC2010/SegmentationClassContext

    Label maps that are already there are kept, so a run can be stopped and repeated. Annotations that cannot be used
    are skipped and named, and the exit code is 1.
    """
    from ttd.benchmarks.making_maps import make_maps

    source = Path(annotations)
    if labels is not None and not name.startswith("context"):
        raise InputError(f"--labels is for context59 and context60; the labels of {name} are known: leave it out")
    jobs = _jobs(name, source, Path(out), labels)
    writable_folder(Path(out))
    done = make_maps(jobs)
    click.echo(f"{done.made + done.kept} label maps in {printable(out)}, {done.made} of them made now")
    tell_skipped(done.skipped)
    return 1 if done.skipped else 0


def _jobs(name: str, source: Path, out: Path, labels: str | None) -> list[MapJob]:
    if name == "coco-object":
        from ttd.benchmarks.coco_annotations import CocoMasks
        from ttd.benchmarks.coco_labels import object_maps

        return object_maps(CocoMasks(source), out)
    if name == "coco-stuff":
        from ttd.benchmarks.coco_labels import stuff_maps

        return stuff_maps(source, out)
    if name == "cityscapes":
        from ttd.benchmarks.cityscapes_labels import train_id_maps

        return train_id_maps(source, out)
    from ttd.benchmarks.context_labels import context_maps

    return context_maps(source, out, Path(labels) if labels is not None else "context459")
