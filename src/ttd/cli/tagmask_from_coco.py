"""`ttd data tagmask-from-coco`: the benchmark `tagmask` for everyone who has COCO."""

from __future__ import annotations

from pathlib import Path

import click

from ttd.cli.output import printable, tell_skipped, writable_folder


@click.command("tagmask-from-coco")
@click.option("--captions", required=True, metavar="FILE", help="captions_val2017.json")
@click.option("--masks", required=True, metavar="FILE", help="panoptic_val2017.json or instances_val2017.json")
@click.option("--segments", metavar="DIR", help="Panoptic PNG files; by default beside the JSON file.")
@click.option("--images", required=True, metavar="DIR", help="The pictures: val2017")
@click.option("--words", metavar="FILE", help="Another word list (lines of category: name, name).")
@click.option("--every-caption", is_flag=True, help="All captions of a picture, not only the first that fits.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pictures.")
@click.option("--out", required=True, metavar="DIR", help="The new set.")
def tagmask_from_coco(
    captions: str,
    masks: str,
    segments: str | None,
    images: str,
    words: str | None,
    every_caption: bool,
    limit: int | None,
    out: str,
) -> int:
    """Build a TagMask set from COCO: captions, which of their words are true, and the masks of these.

    \b
    ttd data tagmask-from-coco --captions annotations/captions_val2017.json \\
        --masks annotations/panoptic_val2017.json --images val2017 --out coco-tagmask
    ttd eval tagmask --data coco-tagmask --model mini --out runs/coco-tagmask

    Words are matched to COCO's categories by a list (plurals, synonyms, compounds); docs/benchmarks.md says
    what that cannot know.
    """
    from ttd.benchmarks.coco_annotations import CocoMasks
    from ttd.benchmarks.coco_tagmask import CocoTagMask, write_coco_tagmask
    from ttd.benchmarks.coco_words import WordList

    source = CocoTagMask(
        Path(captions),
        CocoMasks(Path(masks), Path(segments) if segments else None),
        Path(images),
        WordList.read(Path(words) if words else None),
        every_caption,
    )
    written = write_coco_tagmask(source, writable_folder(Path(out)), limit)
    click.echo(f"{written.rows} captions in {printable(out)}, {written.unmatched} named nothing that is annotated")
    tell_skipped(written.skipped)
    return 1 if written.skipped else 0
