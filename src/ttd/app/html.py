"""Answers as HTML: coloured words, maps, labelled images with legends."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ttd.app.answers import CaptionResult, WordsResult
from ttd.results import Segmentation, TaggedWord, Tagging
from ttd.text.words import printable
from ttd.viz.figures import caption_chips
from ttd.viz.overlays import bounded, class_colours, heatmap_overlay, label_overlay, mask_overlay, scale

if TYPE_CHECKING:
    from ttd.app.explore import Example


def escaped(value: str) -> str:
    """Any string as text in HTML."""
    return escape(printable(value), quote=True)


def css_colour(colour: Sequence[int] | npt.NDArray[np.integer]) -> str:
    """ "#rrggbb"."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def ink(colour: Sequence[int] | npt.NDArray[np.integer]) -> str:
    """Black or white, whichever contrasts more with `colour`: at least 4.5 to 1 (WCAG's relative luminance)."""
    parts = [int(part) / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def img(image: Image.Image, alt: str, kind: str = "", source: str = "") -> str:
    """An `<img>` that contains its pixels, so that no file is written on the server."""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=88, method=2)
    pixels = base64.b64encode(data.getvalue()).decode("ascii")
    named = f' data-source="{source}"' if source else ""
    return f'<img class="{kind}" alt="{escaped(alt)}"{named} src="data:image/webp;base64,{pixels}">'


def hidden_png(source: str, values: npt.NDArray[Any]) -> str:
    """An `<img>` as data for `viewer.js`: labels uint8 [h,w] as they are, a map float [h,w] in 0..1 as 0 to 255."""
    if values.dtype != np.uint8:
        values = (values * 255).round().clip(0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG", compress_level=3)
    pixels = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img alt="" data-source="{source}" src="data:image/png;base64,{pixels}">'


def figure(content: str, title: str, note: str = "") -> str:
    """An image (as HTML) with a title and a short note under it."""
    note = f'<span class="ttd-note">{escaped(note)}</span>' if note else ""
    return f"<figure>{content}<figcaption><b>{escaped(title)}</b>{note}</figcaption></figure>"


def colour_bar(low: str, high: str) -> str:
    """The colour scale of the maps, from low (dark) to high (bright)."""
    stops = ",".join(css_colour(scale()[index]) for index in range(0, 256, 51))
    bar = f'<span class="ttd-bar" style="background:linear-gradient(90deg,{stops})"></span>'
    return f"{escaped(low)}{bar}{escaped(high)}"


def notice(sentence: str, kind: str = "info") -> str:
    """A message to the visitor, as a full sentence; `kind` is "info" or "error"."""
    role = "alert" if kind == "error" else "status"
    sign = "⚠ " if kind == "error" else ""
    if re.match(r"[a-z]+\b(?!\.)", sentence):  # a word, not the name of a file
        sentence = sentence[:1].upper() + sentence[1:]
    sentence += "" if sentence.endswith((".", ")", "!", "?")) else "."
    return f'<div class="ttd-notice ttd-{kind}" role="{role}">{sign}{escaped(sentence)}</div>'


def examples_html(examples: Sequence[Example]) -> str:
    """A button with a small image for each example, named after its caption."""
    buttons = []
    for number, example in enumerate(examples):
        with Image.open(example.path) as image:
            shown = img(bounded(image, _THUMBNAIL), example.caption)
        buttons.append(f'<button data-example="{number}" title="{escaped(example.caption)}">{shown}</button>')
    return f'<p class="ttd-hint">Examples</p><div class="ttd-examples">{"".join(buttons)}</div>'


_THUMBNAIL = 160  # pixels of the longer side
PANEL, LARGE = 320, 512  # pixels of an image's longer side
_GRID = 96  # points per side among which the position of a region's name is chosen
_MIN_NAMED = 0.01  # fraction of the image from which a label's name is drawn
_CHOSEN = "✓"


def words_html(words: WordsResult) -> str:
    """The caption coloured by score, with the selected words framed and ticked, and the scale.

    Words with a map are buttons, which `viewer.js` shows it for.
    """
    tagging = words.tagging
    scores = iter(tagging.words)
    layers = {text.lower(): number for number, text in enumerate(words.texts) if text in words.maps}
    parts = []
    for chip in caption_chips(tagging.caption or "", tagging.words):
        space = " " if chip.space else ""
        if chip.background is None:
            parts.append(f'{space}<span class="ttd-plain">{escaped(chip.text)}</span>')
        else:
            word = next(scores)
            parts.append(space + _word(word, chip.background, layers.get(word.text.lower())))
    line = f'<p class="ttd-caption" role="group" aria-label="Words of the caption">{"".join(parts)}</p>'
    return line + _legend_of_words(tagging)


def _word(word: TaggedWord, colour: Sequence[int], layer: int | None) -> str:
    state = "chosen" if word.selected else "not chosen"
    tick = f"{_CHOSEN} " if word.selected else ""
    kind = "ttd-word ttd-chosen" if word.selected else "ttd-word"
    style = f"background:{css_colour(colour)};color:{ink(colour)}"
    tip = escaped(f"{word.text}: {state}, score {word.score:.3f}")
    inner = f"{tick}{escaped(word.text)}<small>{word.score:.3f}</small>"
    if layer is None:
        return f'<span class="{kind}" style="{style}" title="{tip}">{inner}</span>'
    return (
        f'<button class="{kind}" style="{style}" title="{tip}" data-layer="w{layer}" data-name="{escaped(word.text)}" '
        f'aria-pressed="false">{inner}</button>'
    )


def _legend_of_words(tagging: Tagging) -> str:
    order = tagging.ranked()
    selected = sum(word.selected for word in order)
    rule = f"threshold {tagging.threshold}"
    if tagging.selection == "gap":
        rule = "no gap between scores"
        if selected < len(order):
            rule = f"above the largest gap in score, {order[selected - 1].score - order[selected].score:.3f}"
    bar = colour_bar(f"{order[-1].score:.3f} ", f" {order[0].score:.3f}")
    return (
        f'<p class="ttd-scale">{escaped(tagging.score)}: {bar}'
        f"<span>{_CHOSEN} framed: chosen ({selected} of {len(order)}, {escaped(rule)})</span></p>"
    )


def notes_html(tagging: Tagging, vocabulary_size: int | None) -> str:
    """What to know about the answer: words that the model does not know, texts that were cut."""
    notes = []
    if tagging.unknown:
        some = ", ".join(tagging.unknown[:8]) + (" …" if len(tagging.unknown) > 8 else "")
        notes.append(
            f"This model does not know: {some}. Its vocabulary has {vocabulary_size} words, so these "
            "scores mean little."
        )
    if tagging.truncated:
        notes.append("Some text is longer than the text encoder takes; its beginning was used.")
    return "".join(notice(note) for note in notes)


def maps_html(words: WordsResult, image: Image.Image) -> str:
    """The image, then one heatmap for each selected word that has one, highest score first."""
    scores = {word.text: word.score for word in words.tagging.distinct()}
    panels = [figure(img(bounded(image, PANEL, enlarge=True), "the image"), "image")]
    for name in words.selected:
        drawn = heatmap_overlay(image, words.maps[name], side=PANEL, enlarge=True)
        panels.append(figure(img(drawn, f"where {name} is"), name, f"{scores[name]:.3f}"))
    left = len(words.tagging.selected) - len(words.selected)
    more = notice(f"… and {left} more chosen words") if left > 0 else ""
    scale = f'<p class="ttd-scale">each map: {colour_bar("lowest ", " highest")}</p>'
    return f'<div class="ttd-grid">{"".join(panels)}</div>{scale}{more}'


def captions_html(captions: Sequence[CaptionResult], image: Image.Image, threshold: float) -> str:
    """The caption's map and mask; before and after side by side where there are two."""
    columns = []
    for view in captions:
        heat = heatmap_overlay(image, view.heat, side=PANEL, enlarge=True)
        mask = mask_overlay(image, view.mask, side=PANEL, enlarge=True)
        columns.append(
            f'<section><h4>{escaped(view.title)}</h4><div class="ttd-grid">'
            + figure(img(heat, "where the caption is"), "map")
            + figure(
                img(mask, "the caption's mask"),
                f"mask at {threshold:.2f}",
                f"{view.mask.mean():.1%}",
            )
            + "</div></section>"
        )
    scale = f'<p class="ttd-scale">each map: {colour_bar("lowest ", " highest")}</p>'
    return f'<div class="ttd-columns">{"".join(columns)}</div>{scale}'


def best_html(words: WordsResult, image: Image.Image) -> str:
    """Every pixel in the colour of its most similar word."""
    return labelled_html(image, words.best, words.texts, background=False)


def segmentation_html(found: Segmentation | None, image: Image.Image) -> str:
    """The classes over the image."""
    if found is None:
        return notice("No word was chosen: write the tags to segment by.")
    unknown = ", ".join(found.unknown[:8])
    note = notice(f"This model does not know: {unknown}.") if unknown else ""
    background = found.background is not None
    return labelled_html(image, found.label_map, found.names, background=background) + note


def labelled_html(
    image: Image.Image, labels: npt.NDArray[np.integer], names: Sequence[str], *, background: bool
) -> str:
    """Labels [h,w] (indices into `names`, 0 being the background where there is one) over the image.

    Two images are stacked: the lower one without colours, the upper one with colours only. The upper one's opacity, the
    CSS variable `--ttd-opacity`, gives the image that `label_overlay` draws at that opacity. Names are written on the
    regions, so that they can be distinguished without colours, too.
    """
    drawn: dict[str, Any] = {"background": background, "legend": 0, "side": LARGE, "enlarge": True}
    lower, upper = (label_overlay(image, labels, names, opacity=opacity, **drawn) for opacity in (0.0, 1.0))
    fractions = np.bincount(labels.ravel().astype(np.int64), minlength=len(names)) / labels.size
    first = 1 if background else 0
    colours = class_colours(max(1, len(names) - first))
    order = [i for i in np.argsort(-fractions, kind="stable") if fractions[i] > 0 and i >= first]
    places = name_positions(labels, background=background)
    tags = [_name_tag(names[i], places[i], colours[i - first]) for i in order if i in places]
    rows = [
        f'<li><span class="ttd-square" style="background:{css_colour(colours[i - first])}"></span>'
        f"<span>{escaped(names[i])}</span><span>{fractions[i]:.1%}</span></li>"
        for i in order
    ]
    if background:
        rows.append(f'<li><span class="ttd-square"></span><span>background</span><span>{fractions[0]:.1%}</span></li>')
    missing = [names[i] for i in range(first, len(names)) if fractions[i] == 0]
    absent = f"<p>not found: {escaped(', '.join(missing))}</p>" if missing else ""
    return (
        '<div class="ttd-labelled"><div class="ttd-layers">'
        + img(lower, "the image")
        + img(upper, "its labels", "ttd-upper")
        + "".join(tags)
        + f'</div><div class="ttd-legend"><ul>{"".join(rows)}</ul>{absent}</div></div>'
    )


def name_positions(labels: npt.NDArray[np.integer], *, background: bool) -> dict[int, tuple[float, float]]:
    """Positions of the labels' names, as fractions (across, down) of the image; of tiny ones nowhere."""
    fractions = np.bincount(labels.ravel().astype(np.int64)) / labels.size
    wanted = [label for label in range(int(background), len(fractions)) if fractions[label] >= _MIN_NAMED]
    return {label: _name_position(labels, label) for label in wanted}


def _name_position(labels: npt.NDArray[np.integer], label: int) -> tuple[float, float]:
    """A point deep inside a label's largest region, as fractions (across, down) of the image."""
    steps = [max(1, side // _GRID) for side in labels.shape]
    inside = np.pad(labels[:: steps[0], :: steps[1]] == label, 1)
    depth = distance_transform_edt(inside)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(column) + 0.5) / depth.shape[1], (float(row) + 0.5) / depth.shape[0]


def _name_tag(name: str, position: tuple[float, float], colour: npt.NDArray[np.uint8]) -> str:
    across, down = (min(0.92, max(0.08, part)) for part in position)
    style = f"left:{across:.1%};top:{down:.1%};border-color:{css_colour(colour)}"
    return f'<span class="ttd-sign" style="{style}">{escaped(name)}</span>'
