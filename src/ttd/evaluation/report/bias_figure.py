"""Single tag bias of one caption as an image, in the form of the paper's Figure 1, a row for each model.

(a) what the caption's map and mask light up beside the map of each true word; (b) how the words share both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ttd.evaluation.report.panels import BLUE, ORANGE
from ttd.evaluation.tasks.bias import COVERED, RegionCounts, SingleTagBias, entropy, of_record, shares, true_words
from ttd.images import read_image
from ttd.viz.figures import heading, indented, titled
from ttd.viz.overlays import bounded, heatmap_overlay, mask_overlay, side_by_side, stack
from ttd.viz.typography import FAINT, INK, PAPER, Chip, fitted, font, paragraph

if TYPE_CHECKING:
    from ttd.model import TTD

PANEL = 190  # pixels of an image's longer side
MOST_WORDS = 4  # maps in a row; the bars show all words
_BARS = 330  # pixels of the bars' width


@dataclass(frozen=True)
class BiasRow:
    """What one model makes of one caption.

    Attributes:
        title: of the model.
        caption_map: [H,W] in 0..1.
        mask: bool [H,W].
        word_maps: [n,H,W] in 0..1, of the true words.
        lit: what the mask lights up of the words' regions.
        score: the words' shares of the score, [n].
    """

    title: str
    caption_map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    word_maps: NDArray[np.float32]
    lit: RegionCounts
    score: NDArray[np.float64]


def bias_image(
    photo: Image.Image,
    caption: Sequence[str],
    words: Sequence[str],
    truth: NDArray[np.bool_],
    rows: Sequence[BiasRow],
) -> Image.Image:
    """One image of a caption.

    Args:
        photo: the image.
        caption: all words of the caption, in order.
        words: the true ones, distinct.
        truth: union of the words' regions, bool [H,W]: of the first model, where they are its own.
        rows: one row each, e.g. before and after.
    """
    true = set(words)
    line = paragraph([Chip(word, BLUE if word in true else None, word in true) for word in caption], 1000)
    image = bounded(photo, PANEL, enlarge=True)
    given = [titled(image, "image"), titled(_masked(photo, truth), "the words' regions")]
    drawn = [_row(photo, words, row) for row in rows]
    page = stack([indented(line, 10), indented(side_by_side(given), 10), *drawn])
    framed = Image.new("RGB", (page.width + 10, page.height + 20), PAPER)
    framed.paste(page, (0, 10))
    return framed


def _row(photo: Image.Image, words: Sequence[str], row: BiasRow) -> Image.Image:
    panels = [
        titled(heatmap_overlay(photo, row.caption_map, side=PANEL, enlarge=True), "caption's map"),
        titled(_masked(photo, row.mask), "caption's mask"),
    ]
    for word, heat in list(zip(words, row.word_maps, strict=True))[:MOST_WORDS]:
        panels.append(titled(heatmap_overlay(photo, heat, side=PANEL, enlarge=True), f"“{word}”"))
    portions = {"share of the map": shares(row.lit.coverage), "share of the score": row.score}
    panels.append(_bars(words, portions, row.lit.coverage > COVERED))
    return indented(stack([heading(row.title, 600), side_by_side(panels)]), 10)


def _masked(photo: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    return mask_overlay(photo, mask, side=PANEL, enlarge=True)


def _bars(words: Sequence[str], portions: Mapping[str, NDArray[np.float64]], covered: NDArray[np.bool_]) -> Image.Image:
    """Two bars for each word (blue, above: of the map; orange, below: of the score), a tick where it is covered."""
    line, top, left = 34, 44, 100
    page = Image.new("RGB", (_BARS, top + line * len(words) + 22), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (name, values) in enumerate(portions.items()):
        colour = (BLUE, ORANGE)[number]
        evenness = "–" if np.isnan(values).any() else f"{entropy(values):.2f}"
        y = 4 + 18 * number
        draw.rectangle((2, y + 2, 12, y + 12), fill=colour)
        draw.text((18, y), f"{name}: entropy {evenness}", font=font(12), fill=INK)
    room = _BARS - left - 52
    even = left + room / len(words)
    for number, word in enumerate(words):
        y = top + line * number
        tick = "✓ " if covered[number] else ""
        draw.text((left - 6, y + 7), fitted(tick + word, font(13), left - 8), font=font(13), fill=INK, anchor="ra")
        for place, values in enumerate(portions.values()):
            share = float(np.nan_to_num(values[number]))
            at = y + 3 + 13 * place
            draw.rectangle((left, at, left + room * share, at + 10), fill=(BLUE, ORANGE)[place])
            draw.text((_BARS - 4, at - 2), f"{share:.0%}", font=font(11), fill=FAINT, anchor="ra")
    bottom = top + line * len(words)
    draw.line((even, top, even, bottom), fill=INK, width=1)
    draw.text((even, bottom + 2), "even; ✓ covered by the mask", font=font(11), fill=FAINT, anchor="ma")
    return page


def draw(benchmark: SingleTagBias, models: Mapping[str, TTD], number: int) -> Image.Image:
    """The bias of caption `number`, a row for each model under its name."""
    row = benchmark.rows[number]
    words, image, options = true_words(row), read_image(row.sample.image), benchmark.options["masks"]
    rows = []
    for title, model in models.items():
        maps = model.heatmaps(image, [row.caption, *words], options)
        mask = model.caption_mask(image, row.caption, options=options)
        found, score = of_record(benchmark.measure(model, number))
        rows.append(BiasRow(title, maps[0], mask, maps[1:], found, score))
    truth = np.asarray(benchmark.regions_of(next(iter(models.values())), number).any(0))
    return bias_image(image, row.words, words, truth, rows)
