"""`ttd heatmap`, `ttd mask`, `ttd segment`: where in the image something is."""

from __future__ import annotations

import io
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.batch import Answer, Job, run_job, shortened, text_notes
from ttd.cli.options import ListCommand, clean_text, tag_list
from ttd.cli.options.data import ImageSelection, source_options
from ttd.cli.options.model import Settings, shared_options
from ttd.cli.output import table
from ttd.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from ttd.data.items import ImageItem
    from ttd.model import TTD


def format_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--format`: which files `--out` writes, separated by commas; the first one by default."""

    def chosen(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        named = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        if unknown := [name for name in named if name not in formats] or ([] if named else [value]):
            raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(formats)}.", ctx, parameter)
        return named

    what = f"What --out writes: {', '.join(formats)}; several separated by commas."
    return click.option("--format", "formats", default=formats[0], show_default=True, callback=chosen, help=what)


@click.command()
@source_options(captions=False)
@click.argument("texts", nargs=-1, metavar="TEXT...")
@format_option("png", "npz")
@shared_options
def heatmap(settings: Settings, source: ImageSelection, texts: tuple[str, ...], formats: tuple[str, ...]) -> int:
    """Show where each TEXT is in the image.

    \b
    ttd heatmap photo.jpg dog grass "a dog on the grass" --out dog.png
    ttd heatmap photos/ dog grass --out maps
    ttd heatmap photo.jpg dog --out maps --format npz    (float16 [N,H,W] and the texts)
    ttd heatmap list.jsonl --out maps    (lines: {"image": ..., "tags": [...]})
    """
    return run_job(HeatmapJob(settings, formats), settings, source, None, [clean_text(text) for text in texts])


@click.command()
@source_options(captions=True)
@click.argument("caption", required=False)
@click.option("--caption", "for_all", metavar="TEXT", help="The caption of every image that has none of its own.")
@click.option("--threshold", type=click.FloatRange(0.0, 1.0), help="Cut of the caption's map; by default the model's.")
@format_option("png", "coco-rle")
@shared_options
def mask(
    settings: Settings,
    source: ImageSelection,
    caption: str | None,
    for_all: str | None,
    threshold: float | None,
    formats: tuple[str, ...],
) -> int:
    """Find the part of the image that the caption describes.

    \b
    ttd mask photo.jpg "a dog on the grass" --out dog.png
    ttd mask photos/ --out masks         (captions: photos/NAME.txt, or --caption)
    """
    return run_job(MaskJob(settings, formats, threshold), settings, source, caption or for_all)


@click.command(cls=ListCommand)
@source_options(captions=False)
@click.option("--tags", multiple=True, callback=tag_list, metavar="WORD...", help="The classes, e.g. --tags dog grass.")
@format_option("png", "coco-rle")
@shared_options
def segment(settings: Settings, source: ImageSelection, tags: tuple[str, ...], formats: tuple[str, ...]) -> int:
    """Label every pixel with one of the classes or as background.

    \b
    ttd segment photo.jpg --tags dog grass "traffic light" --out dog.png
    ttd segment photos/ --tags dog grass --out labels
    ttd segment list.csv --out labels    (columns: image,tags with tags separated by ;)
    """
    return run_job(SegmentJob(settings, formats), settings, source, None, tags)


@dataclass(frozen=True)
class MapJob(Job):
    """Looks at one image after the other, by the shared options."""

    settings: Settings
    formats: tuple[str, ...]

    def question(self) -> dict[str, Any]:
        """Which files are written."""
        return {"formats": list(self.formats)}

    def answers(
        self, model: TTD, images: Sequence[Image.Image], items: Sequence[ImageItem], *, draw: bool
    ) -> list[Answer]:
        """One image after the other."""
        return [self.answer(model, image, item) for image, item in zip(images, items, strict=True)]

    @abstractmethod
    def answer(self, model: TTD, image: Image.Image, item: ImageItem) -> Answer:
        """The answer for one image."""

    def files(
        self, images: dict[str, Callable[[], Image.Image]], data: dict[str, tuple[str, Callable[[], bytes]]]
    ) -> tuple[dict[str, Callable[[], Image.Image]], dict[str, Callable[[], bytes]]]:
        """What is to be written of an answer's images and of its other files: format -> (suffix, content)."""
        kept = dict(content for name, content in data.items() if name in self.formats)
        return images if "png" in self.formats else {}, kept


@dataclass(frozen=True)
class HeatmapJob(MapJob):
    """One heatmap per text."""

    name = "heatmap"

    def check(self, item: ImageItem) -> None:
        """At least one text, none of them empty."""
        if not item.tags or not all(text.strip() for text in item.tags):
            raise InputError(f"There is no text to look for in {item.id}; name what the heatmaps are for.")

    def answer(self, model: TTD, image: Image.Image, item: ImageItem) -> Answer:
        """See `MapJob`."""
        from ttd.viz.figures import heatmap_panels
        from ttd.viz.overlays import heatmap_overlay

        texts = list(item.tags)
        maps = model.heatmaps(image, texts, self.settings.options("masks"))
        found = [_peak(heat) for heat in maps]
        record = {
            "height": image.height,
            "width": image.width,
            "maps": [
                {"text": text, "peak": [x, y], "half": half} for text, (x, y, half) in zip(texts, found, strict=True)
            ],
        }
        rows = [(text, f"{x}, {y}", f"{half:.1%}") for text, (x, y, half) in zip(texts, found, strict=True)]
        drawn: dict[str, Callable[[], Image.Image]] = {
            "": lambda: heatmap_panels(image, dict(zip(texts, maps, strict=True)))
        }
        for number, heat in enumerate(maps, 1):
            drawn[f"map{number}"] = lambda heat=heat: heatmap_overlay(image, heat)  # type: ignore[misc]
        brief = "; ".join(f"{text} at {where}" for text, where, _ in rows)
        notes = text_notes((), model.unknown_words(texts))
        files = self.files(drawn, {"npz": (".npz", lambda: _npz(texts, maps))})
        return Answer(record, table(("text", "peak (x, y)", "above 0.5"), rows), brief, notes, *files)


def _npz(texts: Sequence[str], maps: npt.NDArray[np.float32]) -> bytes:
    """`maps` float16 [N,H,W] and `texts` [N]; read by `numpy.load(path, allow_pickle=False)`."""
    import numpy as np

    stream = io.BytesIO()
    np.savez_compressed(stream, maps=maps.astype(np.float16), texts=np.array(texts, dtype=np.str_))
    return stream.getvalue()


def _peak(heat: npt.NDArray[np.float32]) -> tuple[int, int, float]:
    """Column and row of the highest value, and the share of pixels above 0.5."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return column, row, round(float((heat > 0.5).mean()), 4)


@dataclass(frozen=True)
class MaskJob(MapJob):
    """The mask of a caption."""

    threshold: float | None
    name = "mask"
    of_captions = True

    def check(self, item: ImageItem) -> None:
        """A caption."""
        if not (item.caption or "").strip():
            raise InputError(f"There is no caption for {item.id}; give one for the mask.")

    def question(self) -> dict[str, Any]:
        """The threshold, and which files are written."""
        return {"threshold": self.threshold, **super().question()}

    def answer(self, model: TTD, image: Image.Image, item: ImageItem) -> Answer:
        """See `MapJob`."""
        from ttd.results import coco_annotation
        from ttd.viz.overlays import mask_overlay, mask_png

        caption = item.caption or ""
        found = model.caption_mask(image, caption, self.threshold, self.settings.options("masks"))
        share, box = round(float(found.mean()), 4), _box(found)
        record = {
            "caption": caption,
            "height": image.height,
            "width": image.width,
            "share": share,
            "box": box,
        }
        where = f"x {box[0]} to {box[2]}, y {box[1]} to {box[3]}" if box else "nowhere"
        line = f"{shortened([caption], length=60)}: {share:.1%} of the image, {where}"
        drawn: dict[str, Callable[[], Image.Image]] = {
            "": lambda: mask_overlay(image, found),
            "mask": lambda: mask_png(found),
        }
        notes = text_notes((), model.unknown_words([caption]))

        def annotations() -> bytes:
            return _coco([{**coco_annotation(found, item.id), "caption": caption}])

        files = self.files(drawn, {"coco-rle": (".coco.json", annotations)})
        return Answer(record, line, f"{share:.1%}, {where}", notes, *files)


def _coco(annotations: list[dict[str, Any]]) -> bytes:
    """A COCO result file: a list of annotations."""
    return (json.dumps(annotations, indent=1) + "\n").encode("ascii")


def _box(found: npt.NDArray[np.bool_]) -> list[int] | None:
    """Left, top, right, bottom of the true pixels, the last two included; None where there are none."""
    rows, columns = found.nonzero()
    return [int(f) for f in (columns.min(), rows.min(), columns.max(), rows.max())] if len(rows) else None


@dataclass(frozen=True)
class SegmentJob(MapJob):
    """A label for every pixel."""

    name = "segment"

    def check(self, item: ImageItem) -> None:
        """At least one class."""
        if not item.tags:
            raise InputError(f"There are no classes for {item.id}; name them with --tags dog grass.")

    def answer(self, model: TTD, image: Image.Image, item: ImageItem) -> Answer:
        """See `MapJob`."""
        from ttd.viz.overlays import label_overlay, label_png

        found = model.segment(image, list(item.tags), self.settings.options("masks"))
        behind = found.background is not None
        shares = sorted(found.shares().items(), key=lambda pair: -pair[1])
        rows = [(name, f"{share:.1%}") for name, share in shares]
        drawn: dict[str, Callable[[], Image.Image]] = {
            "": lambda: label_overlay(image, found.label_map, found.names, background=behind),
            "labels": lambda: label_png(found.label_map, background=behind),
        }
        brief = ", ".join(f"{name} {share}" for name, share in rows if share != "0.0%")
        notes = text_notes((), found.unknown)
        files = self.files(drawn, {"coco-rle": (".coco.json", lambda: _coco(found.to_coco(item.id)))})
        return Answer(found.to_dict(), table(("class", "share"), rows), brief, notes, *files)
