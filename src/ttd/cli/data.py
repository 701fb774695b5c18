"""`ttd data`: check image-text pairs, pack them into shards, choose their words before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ttd.cli.data_browse import browse
from ttd.cli.data_tag import tag
from ttd.cli.options import NameOf
from ttd.cli.options.data import Pairs, pair_options
from ttd.cli.output import pairs_bar, print_bad_samples, print_skipped, run_folder, table
from ttd.errors import InputError
from ttd.registry import DATASETS
from ttd.runs.results_file import json_line
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.annotate.agreement import Agreement, Disagreement

MOST_LISTED = 20


@click.command("agreement")
@click.argument("first")
@click.argument("second")
@click.option("--stop-words", is_flag=True, help="Count stop words and punctuation, too.")
@click.option("--out", metavar="FILE", help="Everything as JSON, with all disagreements.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def agreement(first: str, second: str, stop_words: bool, out: str | None, as_json: bool) -> int:
    """Compare two annotators' TagMask sets of the same data: their words and their masks.

    \b
    ttd data agreement set-of-anna set-of-ben
    ttd data agreement set-of-anna set-of-ben --out agreement.json

    Cohen's kappa of the words (1: always the same decision, 0: no better than chance), the IoU of the masks, and the
    captions on which the two differ.
    """
    from ttd.annotate.agreement import agreement as compare
    from ttd.files import write_file
    from ttd.runs import command

    found = compare(first, second, stop_words=stop_words)
    if out is not None:
        record = {"command": command(), "first": first, "second": second, **found.to_dict()}
        write_file(Path(out), json.dumps(record, indent=1) + "\n")
    if as_json:
        click.echo(json_line(found.to_dict()))
    else:
        click.echo(_figures(found))
        for one in found.disagreements[:MOST_LISTED]:
            click.echo(f"  {printable(one.id)}: {printable(_sentence(one))}")
        if len(found.disagreements) > MOST_LISTED:
            click.echo(f"  … and {len(found.disagreements) - MOST_LISTED:,} more (--out FILE names them all)")
    for identifier, reason in found.skipped[:MOST_LISTED]:
        click.echo(f"  skipped {printable(identifier)}: {printable(reason)}", err=True)
    return 1 if found.skipped else 0


@click.command("annotations")
@click.argument("source")
@click.argument("target")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["coco", "label-studio"]),
    default="coco",
    help="Of the file.",
    show_default=True,
)
@click.option("--images", metavar="DIR", help="Where the images of a file are that is read.")
def exchange(source: str, target: str, kind: str, images: str | None) -> int:
    """Annotations of a TagMask set for other tools, and back: COCO JSON or Label Studio JSON, masks as run lengths.

    \b
    ttd data annotations my-set my-set.json
    ttd data annotations my-set tasks.json --format label-studio
    ttd data annotations edited.json my-set --images my-set/images

    A folder is written into a file, a file (of either format) into a folder, where it replaces annotations of the same
    id. Annotations that cannot be used are skipped and named, and the exit code is 1.
    """
    from ttd.annotate.exchange import import_records, read_exchanged, write_exchanged

    if Path(source).is_dir():
        if images is not None:
            raise InputError("--images is about a file that is read: leave it out")
        number = write_exchanged(Path(source), Path(target), kind)
        click.echo(f"{number:,} annotations in {printable(target)}")
        return 0
    if images is None:
        raise InputError("the images are not in the file: name their folder with --images")
    done = import_records(read_exchanged(Path(source)), Path(images), Path(target))
    click.echo(f"{done.new:,} annotations are new in {printable(target)}, {done.replaced:,} were replaced")
    for identifier, reason in done.skipped[:MOST_LISTED]:
        click.echo(f"  skipped {printable(identifier)}: {printable(reason)}", err=True)
    if len(done.skipped) > MOST_LISTED:
        click.echo(f"  … and {len(done.skipped) - MOST_LISTED:,} more", err=True)
    return 1 if done.skipped else 0


def _figures(found: Agreement) -> str:
    rows = [
        ("captions of both", f"{found.captions:,}", f"{found.only_first:,} and {found.only_second:,} of one alone"),
        ("words: same decision", _number(found.equal), f"{found.words:,} decisions"),
        ("words: Cohen's kappa", _number(found.kappa), ""),
        ("words: F1", _number(found.f1), ""),
        ("captions' masks: IoU", _number(found.caption_iou), f"{found.masks:,} of both, {found.one_mask:,} of one"),
        ("words' masks: IoU", _number(found.word_iou), f"{found.word_masks:,} of both"),
        ("captions that differ", f"{len(found.disagreements):,}", ""),
    ]
    return table(("agreement", "value", "over"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _sentence(one: Disagreement) -> str:
    parts = []
    if one.only_first:
        parts.append(f"only the first: {', '.join(one.only_first)}")
    if one.only_second:
        parts.append(f"only the second: {', '.join(one.only_second)}")
    if one.different_masks:
        parts.append(f"drawn differently: {', '.join(one.different_masks)}")
    if one.iou is not None:
        parts.append(f"mask IoU {one.iou:.2f}")
    return "; ".join(parts)


@click.command()
@click.argument("name", type=NameOf(DATASETS.names))
@click.option("--annotations", required=True, metavar="PATH", help="The official annotations: a file or a folder.")
@click.option("--out", required=True, metavar="DIR", help="For the label maps.")
@click.option("--labels", metavar="FILE", help="context59, context60: what numbers mean (number: name).")
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
    from ttd.evaluation.datasets.converters import make_maps
    from ttd.evaluation.datasets.label_maps import DataSet

    data = DATASETS.find(name)
    if not isinstance(data, DataSet) or data.convert is None:
        raise InputError(f"{name} is read from its original files: nothing has to be prepared")
    if labels is not None and not data.labels:
        raise InputError(f"what the labels of {name} mean is known: leave --labels out")
    more = {"labels": labels or data.labels} if data.labels else {}
    jobs = data.convert(Path(annotations), Path(out), **more)
    run_folder(Path(out))
    done = make_maps(jobs)
    click.echo(f"{done.made + done.existing} label maps in {printable(out)}, {done.made} of them made now")
    print_skipped(done.skipped)
    return 1 if done.skipped else 0


@click.command("tagmask-from-coco")
@click.option("--captions", required=True, metavar="FILE", help="captions_val2017.json")
@click.option("--masks", required=True, metavar="FILE", help="panoptic_val2017.json or instances_val2017.json")
@click.option("--segments", metavar="DIR", help="Panoptic PNG files; by default beside the JSON file.")
@click.option("--images", required=True, metavar="DIR", help="The images: val2017")
@click.option("--words", metavar="FILE", help="Another word list (lines of category: name, name).")
@click.option("--every-caption", is_flag=True, help="All captions of an image, not only the first that fits.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N images.")
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
    from ttd.evaluation.datasets.coco import CocoMasks
    from ttd.evaluation.datasets.tagmask_from_coco import CocoTagMask, WordList, write_coco_tagmask

    source = CocoTagMask(
        Path(captions),
        CocoMasks(Path(masks), Path(segments) if segments else None),
        Path(images),
        WordList.read(Path(words) if words else None),
        every_caption,
    )
    written = write_coco_tagmask(source, run_folder(Path(out)), limit)
    click.echo(f"{written.rows} captions in {printable(out)}, {written.unmatched} named nothing that is annotated")
    print_skipped(written.skipped)
    return 1 if written.skipped else 0


@click.group()
def data() -> None:
    """Image-text pairs: check them, pack a folder into shards, choose their words before training."""


data.add_command(prepare)
data.add_command(tagmask_from_coco)
data.add_command(tag)
data.add_command(browse)
data.add_command(agreement)
data.add_command(exchange)


@data.command()
@pair_options
@click.option("--out", metavar="FILE", help="For the report (JSON) that names every damaged pair.")
def check(pairs: Pairs, out: str | None) -> int:
    """Read and decode every pair, and say which are damaged.

    \b
    ttd data check 'cc3m/{00000..00331}.tar' --out damage.json
    ttd data check captions_val2017.json --images val2017
    """
    from ttd.data.bad_samples import BadSample
    from ttd.runs import read_ahead

    source = pairs.open()
    report = source.report(pairs.max_bad_samples)
    captions = 0
    with pairs_bar(len(source)) as bar:
        for batch in read_ahead(lambda i: len(source[i].captions), range(len(source)), 64, pairs.threads, BadSample):
            for one in batch:
                if isinstance(one, BadSample):
                    report.add(one)
                else:
                    captions += one
            bar.update(len(batch))
    good = report.total - report.to_dict()["damaged"]
    if pairs.as_json:
        click.echo(json_line({**report.to_dict(), "good": good, "captions": captions, "files": report.shards}))
    else:
        click.echo(f"{good:,} of {report.total:,} pairs are good, {captions:,} captions, {report.shards:,} files")
    return print_bad_samples(report, Path(out) if out else None)


@data.command()
@pair_options
@click.option("--out", required=True, metavar="DIR", help="For the shards.")
@click.option("--per-shard", type=click.IntRange(1), default=10_000, show_default=True, help="Pairs in each.")
@click.option("--prefix", default="", metavar="TEXT", help="Beginning of the shards' names.")
def pack(pairs: Pairs, out: str, per_shard: int, prefix: str) -> int:
    """Pack images and a captions file (CSV, TSV, JSONL, COCO JSON) into tar shards.

    \b
    ttd data pack captions_val2017.json --images val2017 --out shards
    ttd data pack pairs.csv --out shards            (columns: image, caption)

    Captions of one image stay together. Images are copied as they are, after a check; damaged ones are
    left out and named in OUT/damage.json.
    """
    from ttd.data.packing import pack as write_shards

    place = run_folder(Path(out))
    source = pairs.open()
    with pairs_bar(len(source)) as bar:
        shards, report = write_shards(
            source,
            place,
            per_shard=per_shard,
            prefix=prefix,
            limit=pairs.max_bad_samples,
            threads=pairs.threads,
            progress=bar.update,
        )
    packed = report.total - report.to_dict()["damaged"]
    if pairs.as_json:
        click.echo(json_line({"pairs": packed, "shards": [str(path) for path in shards]}))
    else:
        click.echo(f"packed {packed:,} pairs into {len(shards):,} shards in {printable(str(place))}")
    return print_bad_samples(report, place / "damage.json")
