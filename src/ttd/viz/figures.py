"""Images of a tagging: the caption coloured by score, the sorted scores with their gap, one heatmap per
selected word.

Figure 4a of the paper shows the sorted scores, its Figure 2 the most similar word of every pixel.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ttd.results import TaggedWord
from ttd.text.words import printable
from ttd.viz.overlays import (
    bounded,
    class_colours,
    colour_values,
    heatmap_overlay,
    label_overlay,
    scale,
    side_by_side,
    stack,
)
from ttd.viz.typography import FAINT, INK, PAPER, Chip, Colour, fitted, font, paragraph

PANEL = 320  # pixels of a heatmap's longer side
MOST_PANELS = 11  # heatmaps beside the photo; the rest is counted in a note
MOST_ROWS = 40  # words in the plot of scores
_PICKED: Colour = (0, 114, 178)
_LEFT: Colour = (150, 150, 150)
_GAP: Colour = (213, 94, 0)


def caption_chips(caption: str, words: Sequence[TaggedWord]) -> list[Chip]:
    """The caption with its words coloured from the lowest (dark) to the highest (bright) score.

    `words` are all occurrences, as `Tagging.words` holds them; the selected ones are marked, what has no
    score (stop words, punctuation) stays plain.
    """
    low, high = _range(words)
    chips: list[Chip] = []
    end = 0
    for word in words:
        start = end if word.start is None else word.start
        chips += _plain(caption[end:start], chips)
        chips.append(_chip(word, low, high, space=start == 0 or caption[start - 1].isspace()))
        end = start if word.end is None else word.end
    return chips + _plain(caption[end:], chips)


def _plain(text: str, before: Sequence[Chip]) -> list[Chip]:
    """Uncoloured pieces; the first keeps to the word before it where no space stands between."""
    return [Chip(part, space=number > 0 or not before or text[0].isspace()) for number, part in enumerate(text.split())]


def tag_chips(words: Sequence[TaggedWord]) -> list[Chip]:
    """As `caption_chips` for tags that stand in no caption."""
    low, high = _range(words)
    return [_chip(word, low, high, space=True) for word in words]


def _chip(word: TaggedWord, low: float, high: float, space: bool) -> Chip:
    red, green, blue = colour_values((word.score - low) / max(high - low, 1e-12)).tolist()
    return Chip(word.text, (red, green, blue), word.selected, space)


def _range(words: Sequence[TaggedWord]) -> tuple[float, float]:
    scores = [word.score for word in words]
    return (min(scores), max(scores)) if scores else (0.0, 0.0)


def score_plot(
    words: Sequence[TaggedWord], *, name: str = "s_pixel", gap: bool = True, width: int = 600
) -> Image.Image:
    """Figure 4a: the words from the highest to the lowest score; the selected ones blue, the rest grey.

    With `gap`, a line where the selection ends and the drop in score there. Many words: the ends and the
    neighbours of that line.
    """
    order = sorted(words, key=lambda word: -word.score)
    picked = sum(word.selected for word in order)
    rows = rows_to_show(len(order), picked)
    low, high = _range(words)
    line, top, middle = 24, 34, int(width * 0.36)
    right = width - 130
    page = Image.new("RGB", (width, top + line * len(rows) + 10), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((10, 8), f"{name}, sorted: {picked} of {len(order)} words selected", font=font(14, True), fill=INK)
    for number, row in enumerate(rows):
        y = top + number * line
        if row is None:
            before = rows[number - 1]
            after = rows[number + 1]
            assert before is not None
            assert after is not None
            draw.text(
                (middle, y + 3),
                f"… {after - before - 1} more words …",
                font=font(13),
                fill=FAINT,
                anchor="ra",
            )
            continue
        word = order[row]
        colour = _PICKED if word.selected else _LEFT
        x = middle + 14 + (right - middle - 24) * (word.score - low) / max(high - low, 1e-12)
        face = font(14, word.selected)
        draw.text((middle, y + 3), fitted(word.text, face, middle - 14), font=face, fill=INK, anchor="ra")
        draw.line((middle + 10, y + 12, x, y + 12), fill=colour, width=2)
        draw.ellipse((x - 5, y + 7, x + 5, y + 17), fill=colour)
        draw.text((width - 80, y + 4), f"{word.score:.3f}", font=font(13), fill=FAINT, anchor="ra")
        if gap and row == picked - 1 and picked < len(order):
            drop = word.score - order[picked].score
            for dash in range(10, width - 76, 12):
                draw.line((dash, y + line, dash + 6, y + line), fill=_GAP, width=2)
            draw.text((width - 4, y + line), f"gap {drop:.3f}", font=font(12, True), fill=_GAP, anchor="rm")
    return page


def rows_to_show(number: int, picked: int, most: int = MOST_ROWS) -> list[int | None]:
    """Which of `number` sorted words a plot of at most `most` rows shows (None: some are left out here):
    the first, those around the end of the selection, the last.
    """
    if number <= most:
        return list(range(number))
    third = (most - 2) // 3
    around = range(max(0, picked - third // 2 - 1), min(number, picked + third - third // 2))
    keep = sorted({*range(third), *around, *range(number - third, number)})
    rows: list[int | None] = []
    for index in keep:
        if rows and rows[-1] is not None and index - rows[-1] == 2:
            rows.append(index - 1)
        elif rows and rows[-1] is not None and index - rows[-1] > 2:
            rows.append(None)
        rows.append(index)
    return rows


def best_word_image(
    image: Image.Image,
    best: npt.NDArray[np.integer],
    words: Sequence[str],
    *,
    side: int = 640,
    rows: int = 25,
) -> Image.Image:
    """Figure 2: every pixel coloured by its most similar word; `best` [h,w] (any grid) indexes `words`, of
    which the legend names `rows` at most.
    """
    return label_overlay(image, best, words, background=False, legend=rows, side=side, enlarge=True)


def heatmap_panels(
    image: Image.Image,
    maps: Mapping[str, npt.NDArray[np.float32]],
    notes: Mapping[str, str] | None = None,
    *,
    left_out: int = 0,
) -> Image.Image:
    """The photo, then the maps [h,w] in 0..1 over it, each under its name and its note.

    The rows fill about 1000 pixels. Past `MOST_PANELS` maps a line says how many are left; `left_out` counts
    those that were not even given.
    """
    notes = notes or {}
    panels = [titled(bounded(image, PANEL, enlarge=True), "image", "")]
    for name in list(maps)[:MOST_PANELS]:
        panel = heatmap_overlay(image, maps[name], side=PANEL, enlarge=True)
        panels.append(titled(panel, name, notes.get(name, "")))
    columns = min(len(panels), max(1, 1020 // (panels[0].width + 10)))
    page = _grid(panels, columns)
    left_out += max(0, len(maps) - MOST_PANELS)
    if left_out:
        note = Image.new("RGB", (page.width, 26), PAPER)
        ImageDraw.Draw(note).text((10, 2), f"… and {left_out} more words", font=font(15), fill=FAINT)
        return stack([page, note])
    return page


def titled(image: Image.Image, title: str, note: str = "") -> Image.Image:
    """`image` below a title, and a note at the right of it."""
    width = max(image.width, 120)
    page = Image.new("RGB", (width, image.height + 26), PAPER)
    draw = ImageDraw.Draw(page)
    room = width - (font(13).getlength(note) + 8 if note else 0)
    draw.text((0, 4), fitted(title, font(15, True), room), font=font(15, True), fill=INK)
    draw.text((width, 6), note, font=font(13), fill=FAINT, anchor="ra")
    page.paste(image, (0, 26))
    return page


def _grid(panels: Sequence[Image.Image], columns: int, gap: int = 10) -> Image.Image:
    """Images of one size in rows of `columns`."""
    width, height = panels[0].width + gap, panels[0].height + gap
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * width + gap, rows * height + gap), PAPER)
    for number, panel in enumerate(panels):
        page.paste(panel, (gap + number % columns * width, gap + number // columns * height))
    return page


def _scale_bar(low: float, high: float, name: str) -> Image.Image:
    """What the caption's colours mean."""
    page = Image.new("RGB", (620, 26), PAPER)
    bar = Image.fromarray(np.repeat(scale()[None], 12, axis=0))
    page.paste(bar.resize((160, 12)), (76, 6))
    draw = ImageDraw.Draw(page)
    draw.text((70, 4), f"{low:.3f}", font=font(12), fill=FAINT, anchor="ra")
    draw.text((242, 4), f"{high:.3f}  {printable(name)}; underlined: selected", font=font(12), fill=FAINT)
    return page


def tagging_image(
    image: Image.Image,
    chips: Sequence[Chip],
    words: Sequence[TaggedWord],
    maps: Mapping[str, npt.NDArray[np.float32]],
    *,
    score: str = "s_pixel",
    gap: bool = True,
    best: npt.NDArray[np.integer] | None = None,
) -> Image.Image:
    """One page: the coloured caption (`chips`), the photo with one heatmap per selected word (`maps`, [h,w]
    in 0..1), the sorted scores, and beside them the most similar word of every pixel (`best` [h,w]
    indexes `words`).
    """
    notes = {word.text: f"{word.score:.3f}" for word in words}
    left_out = sum(word.selected for word in words) - len(maps)
    panels = heatmap_panels(image, maps, notes, left_out=max(0, left_out))
    width = max(panels.width, 1020)
    head = Image.new("RGB", (width, 12), PAPER)
    line = indented(stack([paragraph(chips, width - 20), _scale_bar(*_range(words), score)]), 10)
    plot = score_plot(words, name=score, gap=gap)
    if best is not None:
        where = best_word_image(image, best, [word.text for word in words], side=PANEL, rows=12)
        plot = side_by_side([plot, stack([heading("most similar word of every pixel", where.width), where])])
    return stack([head, line, panels, plot])


def labelled_figure(
    image: Image.Image,
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    background: bool,
    opacity: float,
    kind: str,
) -> bytes:
    """`label_overlay` as a file for a paper: the legend's text and frames stay vectors.

    Args:
        image, labels, names, background, opacity: see `label_overlay`.
        kind: "svg" or "pdf".
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    drawn = label_overlay(image, labels, names, background=background, opacity=opacity, legend=0)
    first = int(background)
    colours = class_colours(max(1, len(names) - first)) / 255
    shares = np.bincount(labels.ravel().astype(np.int64), minlength=len(names)) / labels.size
    there = [index for index in np.argsort(-shares, kind="stable") if shares[index] > 0 and index >= first]
    figure = Figure(figsize=(5.5, 5.5 * drawn.height / drawn.width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(drawn))
    axes.set_axis_off()
    patches = [Patch(color=colours[i - first], label=f"{printable(names[i])}  {shares[i]:.1%}") for i in there[:60]]
    if patches:
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)
    stream = io.BytesIO()
    # Text as text, a dollar sign as itself, and no date, so that equal answers are equal files.
    dated = {"Date": None} if kind == "svg" else {"CreationDate": None}
    with mpl.rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "text.parse_math": False, "svg.hashsalt": "ttd"}):
        figure.savefig(stream, format=kind, bbox_inches="tight", pad_inches=0.02, dpi=200, metadata=dated)
    return stream.getvalue()


def heading(text: str, width: int) -> Image.Image:
    """A line of bold text above an image of `width` pixels."""
    page = Image.new("RGB", (max(width, 300), 34), PAPER)
    ImageDraw.Draw(page).text((0, 8), text, font=font(14, True), fill=INK)
    return page


def indented(image: Image.Image, left: int) -> Image.Image:
    """`image` with `left` pixels of white before it."""
    page = Image.new("RGB", (image.width + left, image.height), PAPER)
    page.paste(image, (left, 0))
    return page
