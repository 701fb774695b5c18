"""`ttd tag`: which words of a caption are in the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.batch import Answer, Job, run_job, text_notes
from ttd.cli.options import ListCommand, tag_list
from ttd.cli.options.data import EngineChoice, ImageSelection, engine_options, source_options
from ttd.cli.options.model import Settings, shared_options
from ttd.cli.options.words import SelectionChoice, selection_options
from ttd.cli.output import bar, padded, terminal_width, width
from ttd.errors import InputError, TTDError
from ttd.registry import SCORES
from ttd.text.words import UNSPACED_REMEDY, is_unspaced, printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from ttd.data.items import ImageItem
    from ttd.inference.views import EncodedImage
    from ttd.model import TTD
    from ttd.results import TaggedWord, Tagging

MAP_PIXELS = 50_000_000  # of heatmaps that are held at once, 200 MB


@click.command(cls=ListCommand)
@source_options(captions=True)
@click.argument("caption", required=False)
@click.option("--caption", "for_all", metavar="TEXT", help="The caption of every image that has none of its own.")
@click.option(
    "--tags",
    multiple=True,
    callback=tag_list,
    metavar="WORD...",
    help="Score these words, not the caption's.",
)
@click.option("--score", type=click.Choice(SCORES), default="s_pixel", show_default=True, help="How a word is scored.")
@click.option(
    "--stop-words/--no-stop-words",
    default=None,
    help="Whether words like 'the' and 'on' are left out; by default they are.",
)
@selection_options
@shared_options
@engine_options
def tag(
    engine: EngineChoice,
    settings: Settings,
    selection: SelectionChoice,
    source: ImageSelection,
    caption: str | None,
    for_all: str | None,
    tags: tuple[str, ...],
    score: str,
    stop_words: bool | None,
) -> int:
    """Score the words of a caption and select those that are in the image.

    \b
    ttd tag photo.jpg "a dog on the grass"
    ttd tag photo.jpg "a dog on the grass" --out dog.png
    ttd tag photo.jpg --tags dog cat "traffic light"
    ttd tag photos/ --out results        (captions: photos/NAME.txt, or --caption)
    ttd tag list.jsonl --out results     (lines: {"image": ..., "caption": ...}; also CSV, TSV)
    ttd tag captions_val2017.json --images val2017 --out results
    ttd tag 'cc3m/{00000..00331}.tar' --out words.jsonl
    ttd tag photos/ --selection negatives --percentile 90 --out results

    With --selection negatives a word counts when its score exceeds that percentile of the scores of words which
    were not said of the image.
    """
    return run_job(TagJob(settings, selection, score, stop_words), settings, source, caption or for_all, tags, engine)


@dataclass(frozen=True)
class TagJob(Job):
    """Tagging one image after the other, or a batch at once where nothing is drawn."""

    settings: Settings
    selection: SelectionChoice
    score: str
    stop_words: bool | None
    name = "tag"
    task = "tags"
    of_captions = True

    def over(self, items: Sequence[ImageItem]) -> TagJob:
        """Finds the words to compare with, which may come from all captions together."""
        if not self.selection.compares:
            return self
        from ttd.data.items import known_captions

        words, line = self.selection.find_negatives(known_captions(items), self.stop_words is not False)
        click.echo(printable(line), err=True)
        return replace(self, selection=replace(self.selection, words=words))

    def check(self, item: ImageItem) -> None:
        """A caption or tags."""
        if not item.tags and not (item.caption or "").strip():
            raise InputError(f"There is no caption for {item.id}; give one, or words with --tags.")

    def question(self) -> dict[str, Any]:
        """Score, stop words, selection."""
        return {"stop_words": self.stop_words, **self.selection.question(self.score)}

    def answers(
        self, model: TTD, images: Sequence[Image.Image], items: Sequence[ImageItem], *, draw: bool
    ) -> list[Answer | TTDError]:
        """Batched where nothing is drawn; else each image is encoded once for words and maps."""
        chosen: dict[str, Any] = {} if self.stop_words is None else {"stop_words": self.stop_words}
        options, selection = self.settings.options("tags", **chosen), self.selection.selection(self.score)
        if not draw and not any(item.tags for item in items):
            captions = [item.caption or "" for item in items]
            return [
                tagging if isinstance(tagging, TTDError) else _answer(tagging)
                for tagging in model.tag_many(images, captions, selection=selection, options=options)
            ]
        answers: list[Answer | TTDError] = []
        for image, item in zip(images, items, strict=True):
            encoded = model.encode(image, options)
            tagging = model.tag(encoded, item.caption, tags=item.tags or None, selection=selection)
            answers.append(_answer(tagging, drawings(model, encoded, image, tagging) if draw else {}))
        return answers


def _answer(tagging: Tagging, drawn: dict[str, Callable[[], Image.Image]] | None = None) -> Answer:
    brief = ", ".join(tagging.selected)
    notes = text_notes(tagging.truncated, tagging.unknown)
    if tagging.caption is not None and is_unspaced(tagging.caption):
        notes = (*notes, UNSPACED_REMEDY)
    return Answer(tagging.to_dict(), tag_table(tagging), brief, notes, drawn or {})


def drawings(
    model: TTD, encoded: EncodedImage, image: Image.Image, tagging: Tagging
) -> dict[str, Callable[[], Image.Image]]:
    """The page, the sorted scores (Figure 4a), and every pixel's most similar word (Figure 2)."""
    from ttd.viz.figures import best_word_image, score_plot

    words = tagging.distinct()
    texts = [word.text for word in words]
    gap = tagging.selection == "gap"
    best = model.similarity(encoded, model.encode_text(texts)).argmax(dim=0).cpu().numpy()
    return {
        "": lambda: _page(model, encoded, image, tagging, best),
        "scores": lambda: score_plot(words, name=tagging.score, gap=gap),
        "words": lambda: best_word_image(image, best, texts),
    }


def _page(
    model: TTD, encoded: EncodedImage, image: Image.Image, tagging: Tagging, best: npt.NDArray[np.integer]
) -> Image.Image:
    from ttd.viz.figures import MOST_PANELS, caption_chips, tag_chips, tagging_image

    words = tagging.distinct()
    picked = [word.text for word in tagging.ranked() if word.selected][:MOST_PANELS]
    chips = tag_chips(words) if tagging.caption is None else caption_chips(tagging.caption, tagging.words)
    maps = dict(zip(picked, small_heatmaps(model, encoded, image, picked), strict=True))
    return tagging_image(image, chips, words, maps, score=tagging.score, gap=tagging.selection == "gap", best=best)


def small_heatmaps(
    model: TTD, encoded: EncodedImage, image: Image.Image, texts: Sequence[str]
) -> Iterator[npt.NDArray[np.float32]]:
    """Heatmaps [h,w] bounded for images; those of a huge photo are never in memory all at once."""
    from ttd.viz.overlays import SIDE, on_grid

    factor = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    at_once = max(1, MAP_PIXELS // (image.width * image.height))
    for start in range(0, len(texts), at_once):
        for heat in model.heatmaps(encoded, texts[start : start + at_once]):
            yield on_grid(heat, size)


def tag_table(tagging: Tagging) -> str:
    """The words from the highest to the lowest score, selected ones starred, with the gap between."""
    from ttd.viz.figures import rows_to_show

    order = tagging.ranked()
    picked = sum(word.selected for word in order)
    column = min(30, max(width(text) for text in ("word", *(word.text for word in order))))
    room = max(8, min(40, terminal_width() - column - 14))
    high, low = order[0].score, order[-1].score
    lines = [f"  {padded('word', column)}  {tagging.score}"]
    rows = rows_to_show(len(order), picked)
    for place, row in enumerate(rows):
        if row is None:
            before, after = rows[place - 1], rows[place + 1]
            assert before is not None
            assert after is not None
            lines.append(f"  … {after - before - 1} more (all with --json)")
            continue
        if row == picked and picked > 0 and all(word.selected for word in order[:picked]):  # the best ones, as of a cut
            lines.append(_selection_line(tagging, order, picked))
        share = (order[row].score - low) / max(high - low, 1e-12)
        mark = "*" if order[row].selected else " "
        lines.append(f"{mark} {padded(order[row].text, column)}  {order[row].score:7.4f}  {bar(share, room)}".rstrip())
    lines.append(f"selected: {', '.join(tagging.selected) or 'none'}")
    return "\n".join(lines)


def _selection_line(tagging: Tagging, order: Sequence[TaggedWord], picked: int) -> str:
    if tagging.percentile is not None:
        cut = "" if tagging.threshold is None else f": {tagging.threshold:.4f}"
        return f"  ---- percentile {tagging.percentile:g} of {tagging.negatives} negative words{cut} ----"
    if tagging.selection == "gap":
        return f"  ---- largest gap: {order[picked - 1].score - order[picked].score:.4f} ----"
    return f"  ---- {tagging.selection if tagging.threshold is None else f'threshold {tagging.threshold}'} ----"
