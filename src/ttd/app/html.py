"""An answer as HTML: the coloured words, the maps, the labelled image with its legend."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt

from ttd._version import __version__
from ttd.app.answers import CaptionView, Download, Words
from ttd.errors import InputError
from ttd.results import Segmentation, TaggedWord, Tagging
from ttd.viz.colours import class_colours, scale
from ttd.viz.figures import caption_chips
from ttd.viz.overlays import bounded, heatmap_overlay, label_overlay, label_png, mask_overlay
from ttd.viz.typography import clean


def text(value: str) -> str:
    """Any string as text of a page."""
    return escape(clean(value), quote=True)


def css_colour(colour: Sequence[int] | npt.NDArray[np.integer]) -> str:
    """ "#rrggbb"."""
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def ink(colour: Sequence[int] | npt.NDArray[np.integer]) -> str:
    """Black or white, whichever contrasts more with `colour`: at least 4.5 to 1 (WCAG's relative luminance)."""
    parts = [int(part) / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def img(image: Image.Image, alt: str, kind: str = "") -> str:
    """An `<img>` that carries its pixels, so that nothing lies about on the server's disk."""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=88, method=2)
    source = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img class="{kind}" alt="{text(alt)}" src="data:image/webp;base64,{source}">'


def figure(content: str, title: str, note: str = "") -> str:
    """An image (as HTML) with a title and a short note under it."""
    note = f'<span class="ttd-note">{text(note)}</span>' if note else ""
    return f"<figure>{content}<figcaption><b>{text(title)}</b>{note}</figcaption></figure>"


def colour_bar(low: str, high: str) -> str:
    """The scale of all maps, from low (dark) to high (bright)."""
    stops = ",".join(css_colour(scale()[index]) for index in range(0, 256, 51))
    bar = f'<span class="ttd-bar" style="background:linear-gradient(90deg,{stops})"></span>'
    return f"{text(low)}{bar}{text(high)}"


def notice(sentence: str, kind: str = "info") -> str:
    """A line that speaks to the visitor; `kind` is "info" or "error"."""
    role = "alert" if kind == "error" else "status"
    sign = "⚠ " if kind == "error" else ""
    if re.match(r"[a-z]+\b(?!\.)", sentence):  # a word, not the name of a file
        sentence = sentence[:1].upper() + sentence[1:]
    sentence += "" if sentence.endswith((".", ")", "!", "?")) else "."
    return f'<div class="ttd-notice ttd-{kind}" role="{role}">{sign}{text(sentence)}</div>'


def label_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """The label map at the image's own size: the pixel's value is its label, named in the JSON."""
    if found.segmentation is None:
        raise InputError("There is nothing to download: no word was chosen, so write the tags to segment by.")
    behind = found.segmentation.background is not None
    return "ttd-labels.png", _png(label_png(found.segmentation.label_map, background=behind))


def overlay_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """The image with the classes over it at `opacity` (0..1), and their legend."""
    segmentation = found.segmentation
    if segmentation is None:
        raise InputError("There is nothing to download: no word was chosen, so write the tags to segment by.")
    behind = segmentation.background is not None
    drawn = label_overlay(
        found.image, segmentation.label_map, segmentation.names, background=behind, opacity=opacity, enlarge=True
    )
    return "ttd-overlay.png", _png(drawn)


def record_file(found: Download, opacity: float) -> tuple[str, bytes]:
    """Words, scores, classes and their shares, and the settings they come from."""
    written = json.dumps({"ttd": __version__, **found.record}, indent=1, ensure_ascii=False)
    return "ttd.json", (written + "\n").encode("utf-8", "replace")


FILES: dict[str, Callable[[Download, float], tuple[str, bytes]]] = {
    "Label PNG": label_file,
    "Overlay": overlay_file,
    "JSON": record_file,
}


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


PANEL, LARGE = 320, 512  # pixels of an image's longer side
_POINTS = 96  # side of the grid on which a place for a region's name is looked for
_NAMED = 0.01  # share of the image from which on a region carries its name
_CHOSEN = "✓"


def words_html(words: Words, closed: int | None) -> str:
    """The caption, coloured by score, the chosen words framed and ticked; the scale; what to know."""
    tagging = words.tagging
    scores = iter(tagging.words)
    parts = []
    for chip in caption_chips(tagging.caption or "", tagging.words):
        space = " " if chip.space else ""
        if chip.background is None:
            parts.append(f'{space}<span class="ttd-plain">{text(chip.text)}</span>')
        else:
            parts.append(space + _word(next(scores), chip.background))
    line = f'<p class="ttd-caption">{"".join(parts)}</p>'
    return line + _legend_of_words(tagging) + _notes(tagging, closed)


def _word(word: TaggedWord, colour: Sequence[int]) -> str:
    state = "chosen" if word.selected else "not chosen"
    tick = f"{_CHOSEN} " if word.selected else ""
    kind = "ttd-word ttd-chosen" if word.selected else "ttd-word"
    style = f"background:{css_colour(colour)};color:{ink(colour)}"
    tip = f"{word.text}: {state}, score {word.score:.3f}"
    return (
        f'<span class="{kind}" style="{style}" title="{text(tip)}">{tick}{text(word.text)}'
        f"<small>{word.score:.3f}</small></span>"
    )


def _legend_of_words(tagging: Tagging) -> str:
    order = tagging.ranked()
    picked = sum(word.selected for word in order)
    rule = f"threshold {tagging.threshold}"
    if tagging.selection == "gap":
        rule = "no gap between scores"
        if picked < len(order):
            rule = f"above the largest gap in score, {order[picked - 1].score - order[picked].score:.3f}"
    bar = colour_bar(f"{order[-1].score:.3f} ", f" {order[0].score:.3f}")
    return (
        f'<p class="ttd-scale">{text(tagging.score)}: {bar}'
        f"<span>{_CHOSEN} framed: chosen ({picked} of {len(order)}, {text(rule)})</span></p>"
    )


def _notes(tagging: Tagging, closed: int | None) -> str:
    notes = []
    if tagging.unknown:
        few = ", ".join(tagging.unknown[:8]) + (" …" if len(tagging.unknown) > 8 else "")
        notes.append(
            f"This model does not know: {few}. It knows {closed} words and drawn scenes only, so these "
            "scores mean little."
        )
    if tagging.truncated:
        notes.append("Some text is longer than the text encoder takes; its beginning was used.")
    return "".join(notice(note) for note in notes)


def maps_html(words: Words, image: Image.Image) -> str:
    """The image, then one heatmap for each chosen word, highest score first."""
    scores = {word.text: word.score for word in words.tagging.distinct()}
    panels = [figure(img(bounded(image, PANEL, enlarge=True), "the image"), "image")]
    for name, heat in words.maps.items():
        drawn = heatmap_overlay(image, heat, side=PANEL, enlarge=True)
        panels.append(figure(img(drawn, f"where {name} is"), name, f"{scores[name]:.3f}"))
    left = len(words.tagging.selected) - len(words.maps)
    more = notice(f"… and {left} more chosen words") if left > 0 else ""
    scale = f'<p class="ttd-scale">each map: {colour_bar("lowest ", " highest")}</p>'
    return f'<div class="ttd-grid">{"".join(panels)}</div>{scale}{more}'


def captions_html(captions: Sequence[CaptionView], image: Image.Image, threshold: float) -> str:
    """The caption's map and mask; before and after TTD side by side where there are two."""
    columns = []
    for view in captions:
        heat = heatmap_overlay(image, view.heat, side=PANEL, enlarge=True)
        mask = mask_overlay(image, view.mask, side=PANEL, enlarge=True)
        columns.append(
            f'<section><h4>{text(view.title)}</h4><div class="ttd-grid">'
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


def best_html(words: Words, image: Image.Image) -> str:
    """Every pixel in the colour of its most similar word."""
    return labelled_html(image, words.best, words.texts, background=False)


def segmentation_html(found: Segmentation | None, image: Image.Image) -> str:
    """The classes over the image."""
    if found is None:
        return notice("No word was chosen: write the tags to segment by.")
    unknown = ", ".join(found.unknown[:8])
    note = notice(f"This model does not know: {unknown}.") if unknown else ""
    behind = found.background is not None
    return labelled_html(image, found.label_map, found.names, background=behind) + note


def labelled_html(
    image: Image.Image, labels: npt.NDArray[np.integer], names: Sequence[str], *, background: bool
) -> str:
    """Labels [h,w] (indices into `names`, 0 being the background where there is one) over the image.

    Two images lie on each other, without colours and with nothing else: the upper one's opacity, the CSS
    variable `--ttd-opacity`, gives what `label_overlay` draws at that opacity. Regions carry their names, so
    that they are told apart without colours too.
    """
    drawn: dict[str, Any] = {"background": background, "legend": 0, "side": LARGE, "enlarge": True}
    lower, upper = (label_overlay(image, labels, names, opacity=opacity, **drawn) for opacity in (0.0, 1.0))
    share = np.bincount(labels.ravel().astype(np.int64), minlength=len(names)) / labels.size
    first = 1 if background else 0
    colours = class_colours(max(1, len(names) - first))
    order = [i for i in np.argsort(-share, kind="stable") if share[i] > 0 and i >= first]
    signs = [_sign(names[i], _place(labels, int(i)), colours[i - first]) for i in order if share[i] >= _NAMED]
    rows = [
        f'<li><span class="ttd-square" style="background:{css_colour(colours[i - first])}"></span>'
        f"<span>{text(names[i])}</span><span>{share[i]:.1%}</span></li>"
        for i in order
    ]
    if background:
        rows.append(f'<li><span class="ttd-square"></span><span>background</span><span>{share[0]:.1%}</span></li>')
    missing = [names[i] for i in range(first, len(names)) if share[i] == 0]
    absent = f"<p>not found: {text(', '.join(missing))}</p>" if missing else ""
    return (
        '<div class="ttd-labelled"><div class="ttd-layers">'
        + img(lower, "the image")
        + img(upper, "its labels", "ttd-upper")
        + "".join(signs)
        + f'</div><div class="ttd-legend"><ul>{"".join(rows)}</ul>{absent}</div></div>'
    )


def _place(labels: npt.NDArray[np.integer], label: int) -> tuple[float, float]:
    """A point deep inside a label's largest region, as shares (across, down) of the image."""
    steps = [max(1, side // _POINTS) for side in labels.shape]
    inside = np.pad(labels[:: steps[0], :: steps[1]] == label, 1)
    depth = distance_transform_edt(inside)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(column) + 0.5) / depth.shape[1], (float(row) + 0.5) / depth.shape[0]


def _sign(name: str, place: tuple[float, float], colour: npt.NDArray[np.uint8]) -> str:
    across, down = (min(0.92, max(0.08, part)) for part in place)
    style = f"left:{across:.1%};top:{down:.1%};border-color:{css_colour(colour)}"
    return f'<span class="ttd-sign" style="{style}">{text(name)}</span>'
