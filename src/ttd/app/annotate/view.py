"""The Annotate tab as HTML."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ttd.annotate.annotation_set import AnnotationSet, Progress
from ttd.annotate.item import MAX_CHARACTERS, SHOWN_SIDE, OpenItem
from ttd.annotate.masks import Mask, Prompts
from ttd.annotate.records import Record
from ttd.app.annotate.actions import Tab
from ttd.app.html import css_colour, escaped, img, notice
from ttd.inference.masks import nearest
from ttd.text.words import is_stop_word, split_words
from ttd.viz.overlays import class_colours

_MIN_SIDE = 600  # the same for the masks of smaller images
_FILL, _FILL_ACTIVE = 80, 120  # opacity of the colours, of 255

KEYS = (
    ("A", "accept and go on"), ("S", "skip"), ("N", "next item"), ("P", "previous item"),
    ("U", "undo: a click, then the last decision"), ("W", "to the next word of the caption; Enter chooses or drops it"),
    ("← →", "another chosen word"), ("1-9", "the n-th chosen word"), ("X", "drop the active word"),
    ("D", "dots"), ("B", "box"), ("F", "free hand"), ("[ ]", "smaller, larger brush"), ("O", "clicks mean outside"),
    ("E", "edit the outline"), (", .", "its corner before, after; arrows move it"), ("I Del", "add, delete a corner"),
    ("C", "the word has no pixels"), ("R", "the first proposal again"), ("H", "hide the masks"),
    ("+ −", "zoom in, out"), ("0", "fit the image"), ("Shift ← → ↑ ↓", "move the image"), ("Esc", "forget the corner"),
    ("?", "these keys"),
)  # fmt: skip
_ZOOM = (
    '<button data-do="out" aria-label="Zoom out">−</button><button data-do="fit">Fit</button>'
    '<button data-do="in" aria-label="Zoom in">+</button><output data-zoom-value>100 %</output>'
)
REVIEW_KEYS = (
    ("K", "keep"), ("X", "reject"), ("P", "one back"), ("U", "take back the last verdict"), ("E", "change it"),
    ("H", "hide the masks"), ("+ −", "zoom in, out"), ("0", "fit the image"), ("?", "these keys"),
)  # fmt: skip


class TabView:
    """What one tab shows.

    Args:
        annotations: the set that is annotated.
        tab: its state, which `Actions` changes.
    """

    def __init__(self, annotations: AnnotationSet, tab: Tab) -> None:
        self._annotations, self._tab = annotations, tab
        self._responses = itertools.count(1)
        self._image: tuple[OpenItem, str] | None = None

    def html(self) -> str:
        """The whole tab; with a new number each time, so that the page's script notices an equal response, too."""
        tab = self._tab
        inner = _review(self._annotations, tab.record) if tab.reviewing else self._annotate(tab.opened)
        item = tab.opened.item.number if tab.opened and not tab.reviewing else -1
        message = notice(tab.message, "error" if tab.failed else "info") if tab.message else ""
        return (
            f'<div class="ann" data-response="{next(self._responses)}" data-item="{item}" '
            f'data-reviewing="{int(tab.reviewing)}">{_head(self._annotations.progress(), tab)}'
            f'<div class="ann-message">{message}</div>{inner}</div>'
        )

    def _annotate(self, opened: OpenItem | None) -> str:
        if opened is None:
            return (
                '<p class="ann-done">Nothing is left to annotate. <button data-do="previous">Previous (P)</button></p>'
            )
        if self._image is None or self._image[0] is not opened:
            # Made once for an item: it is the largest part of every response.
            self._image = opened, img(opened.shown, opened.content.caption, "ann-image")
        return _annotate(opened, self._image[1], bool(opened.steps or self._tab.taken))


def _head(progress: Progress, tab: Tab) -> str:
    """The two passes and the progress."""
    done = progress.accepted + progress.skipped
    passes = "".join(
        f'<button data-do="{name}" aria-pressed="{str(on).lower()}">{label}</button>'
        for name, label, on in (
            ("annotate", "Annotate", not tab.reviewing),
            ("review", "Second pass", tab.reviewing),
        )
    )
    position = f"item {tab.opened.item.number + 1} of {progress.total}" if tab.opened and not tab.reviewing else ""
    counts = f"{progress.accepted} accepted, {progress.skipped} skipped, {progress.left} left"
    if progress.kept or progress.rejected:
        counts += f"; {progress.kept} kept, {progress.rejected} rejected"
    share = f"{done / max(1, progress.total):.0%}"
    return (
        f'<div class="ann-head"><span class="ann-passes">{passes}</span><b>{position}</b>'
        f'<span class="ann-progress"><progress max="{progress.total}" value="{done}" aria-label="Items done">'
        f'</progress>{share} done</span><span class="ann-counts">{counts}</span>'
        '<button data-do="help" aria-label="Keys">Keys <kbd>?</kbd></button></div>'
    )


def _annotate(opened: OpenItem, image: str, undoable: bool) -> str:
    """The caption, the image (given as HTML) with the masks, and the panel beside it."""
    colours, masks = word_colours(opened.words), opened.masks()
    stage = _stage(image, opened.size, masks, colours, opened.active, opened.prompts)
    state = {"accepted": "accepted before", "skipped": "skipped before"}.get(opened.status, "")
    panel = (
        f"{_chosen(opened, masks, colours)}{_tools(opened)}"
        f'<div class="ann-decide"><button data-do="accept" class="ann-main">Accept <kbd>A</kbd></button>'
        f'<button data-do="skip">Skip <kbd>S</kbd></button><button data-do="undo" {_off(not undoable)}>Undo '
        f'<kbd>U</kbd></button><button data-do="previous" aria-label="Previous">‹ <kbd>P</kbd></button>'
        f'<button data-do="next" aria-label="Next"><kbd>N</kbd> ›</button></div>{_keys(KEYS)}'
    )
    note = f'<span class="ann-state">{state}</span>' if state else ""
    warning = notice(opened.notice, "warning") if opened.notice else ""
    return (
        f'{warning}{_caption_field(opened)}<div class="ann-caption">{_caption(opened, colours)}{note}</div>'
        f'<div class="ann-columns">{stage}<div class="ann-panel">{panel}</div></div>'
    )


def _caption_field(opened: OpenItem) -> str:
    """The field for the caption of an image that has none in the data; empty for others."""
    if not opened.content.typed:
        return ""
    caption = escaped(opened.content.caption)
    return (
        f'<div class="ann-typed"><input type="text" maxlength="{MAX_CHARACTERS}" value="{caption}" '
        'aria-label="Caption" placeholder="This image has no caption: type what it shows">'
        '<button data-do="caption">Take it <kbd>Enter</kbd></button></div>'
    )


def _caption(opened: OpenItem, colours: Mapping[str, str]) -> str:
    """The caption's words as buttons; punctuation as text."""
    parts, selectable, chosen = [], set(opened.words), set(opened.true)
    for token in opened.tokens:
        word = token.text.lower()
        if word not in selectable:
            parts.append(f'<span class="ann-mark">{escaped(token.text)}</span>')
            continue
        kind = "ann-word" + (" ann-chosen" if word in chosen else "") + (" ann-active" if word == opened.active else "")
        kind += " ann-small" if is_stop_word(word) else ""
        parts.append(
            f'<button class="{kind}" data-do="press" data-word="{escaped(word)}" style="--word:{colours[word]}" '
            f'aria-pressed="{str(word in chosen).lower()}">{escaped(token.text)}</button>'
        )
    return " ".join(parts)


def _chosen(opened: OpenItem, masks: Mapping[str, Mask], colours: Mapping[str, str]) -> str:
    """A row for each chosen word: its colour, and its mask's percentage of the image."""
    rows = []
    for index, word in enumerate(opened.true):
        kind = ' class="ann-active"' if word == opened.active else ""
        area = f"{masks[word].mean():.0%}" if masks[word].any() else "no pixel"
        rows.append(
            f'<li{kind}><button data-do="choose" data-index="{index}"><i style="background:{colours[word]}"></i>'
            f"<b>{escaped(word)}</b><span>{area}</span></button></li>"
        )
    if not rows:
        return '<p class="ttd-hint">Click the words above that are truly in the image.</p>'
    return f'<ol class="ann-list">{"".join(rows)}</ol>'


def _tools(opened: OpenItem) -> str:
    """The modes of a click on the image, and the threshold; the page's script marks the mode that is on."""
    source = (
        "SAM-HQ draws the masks."
        if opened.mask_source == "sam-hq"
        else "Masks are the model's maps above the threshold."
    )
    slider = (
        f'<label class="ann-threshold">Threshold of the map <output>{opened.threshold:.2f}</output>'
        f'<input type="range" min="0" max="1" step="0.01" value="{opened.threshold:.2f}" data-do="threshold" '
        f"{_off(not opened.active)}>"
        "</label>"
    )
    return (
        '<div class="ann-tools"><span class="ann-group"><button data-mode="point">Dots <kbd>D</kbd></button>'
        '<button data-mode="box">Box <kbd>B</kbd></button>'
        '<button data-mode="brush">Free hand <kbd>F</kbd></button>'
        f'<button data-mode="outline" {_off(not opened.active)}>Outline <kbd>E</kbd></button></span>'
        '<span class="ann-group ann-brush"><button data-do="thinner" aria-label="Smaller brush">−</button>'
        '<output data-brush></output><button data-do="thicker" aria-label="Larger brush">+</button></span>'
        '<span class="ann-group ann-corners"><button data-do="before" aria-label="Corner before">'
        "‹ <kbd>,</kbd></button>"
        '<output data-corner aria-live="polite"></output>'
        '<button data-do="after" aria-label="Corner after"><kbd>.</kbd> ›</button>'
        '<button data-do="insert">Add <kbd>I</kbd></button>'
        '<button data-do="delete">Delete <kbd>Del</kbd></button></span>'
        '<button data-switch="outside" aria-pressed="false">Outside <kbd>O</kbd></button>'
        f'<span class="ann-group"><button data-do="clear" {_off(not opened.active)}>Clear <kbd>C</kbd></button>'
        f'<button data-do="again" {_off(not opened.active)}>Again <kbd>R</kbd></button></span></div>{slider}'
        f'<p class="ttd-hint ann-clicks">{source} Click: inside; shift-click: outside; drag: a box.</p>'
        '<p class="ttd-hint ann-corners">Drag a corner; drag from the line to add one; shift-click deletes it.</p>'
    )


def _review(annotations: AnnotationSet, record: Record | None) -> str:
    if record is None:
        return ""
    words = tuple(dict.fromkeys(record.words))
    colours = word_colours(words)
    shown = img(annotations.image_of(record, SHOWN_SIDE), record.caption, "ann-image")
    stage = _stage(shown, record.size[::-1], record.masks, colours, None, Prompts())
    spans = []
    for token in split_words(record.caption):
        word = token.text.lower()
        kind = "ann-word ann-chosen" if word in record.true else "ann-word ann-small"
        spans.append(f'<span class="{kind}" style="--word:{colours.get(word, "#888888")}">{escaped(token.text)}</span>')
    panel = (
        f'<p class="ttd-hint">{escaped(record.id)}, {record.mask_source}, {record.time[:10]}</p>'
        '<div class="ann-decide"><button data-do="keep" class="ann-main">Keep <kbd>K</kbd></button>'
        '<button data-do="reject">Reject <kbd>X</kbd></button><button data-do="back">‹ Back <kbd>P</kbd></button>'
        f'<button data-do="edit">Change it <kbd>E</kbd></button></div>{_keys(REVIEW_KEYS)}'
    )
    return (
        f'<div class="ann-caption">{" ".join(spans)}</div>'
        f'<div class="ann-columns">{stage}<div class="ann-panel">{panel}</div></div>'
    )


def _stage(
    shown: str,
    size: tuple[int, int],
    masks: Mapping[str, Mask],
    colours: Mapping[str, str],
    active: str | None,
    prompts: Prompts,
) -> str:
    """The image (given as HTML), the masks over it, the words on their masks, the active word's points and boxes."""
    width, height = size
    # The masks of a small image are enlarged: otherwise their edges would cover it.
    factor = min(max(1.0, _MIN_SIDE / max(size)), SHOWN_SIDE / max(size))
    layer = _layer(masks, colours, active, (max(1, round(height * factor)), max(1, round(width * factor))))
    labels = "".join(_label(word, mask, colours[word], word == active) for word, mask in masks.items() if mask.any())
    return (
        f'<div class="ann-left" style="--ratio:{width / height:.4f}"><div class="ttd-window ann-window">'
        f'<div class="ann-stage ttd-zoomed" data-width="{width}" data-height="{height}">{shown}{layer}{labels}'
        f"{_marks(prompts, width, height)}</div></div>"
        f'<div class="ann-zoom" role="group" aria-label="View">{_ZOOM}</div></div>'
    )


def _layer(masks: Mapping[str, Mask], colours: Mapping[str, str], active: str | None, size: tuple[int, int]) -> str:
    """An image of the masks: number n of the palette is the n-th word's area, 128 + n its edge."""
    order = sorted(masks, key=lambda word: word == active)  # the active word is drawn last
    numbers = {word: 1 + index % 127 for index, word in enumerate(masks)}
    drawn = np.zeros(size, np.uint8)
    for word in order:
        small = nearest(masks[word].astype(np.uint16), size) > 0
        drawn[small] = numbers[word]
        drawn[small & ~_shrunk(small, 3 if word == active else 2)] = 128 + numbers[word]
    palette, opacity = np.zeros((256, 3), np.uint8), bytearray(256)
    for word, number in numbers.items():
        palette[[number, 128 + number]] = [int(colours[word][at : at + 2], 16) for at in (1, 3, 5)]
        opacity[number], opacity[128 + number] = _FILL_ACTIVE if word == active else _FILL, 255
    layer = Image.fromarray(drawn)
    layer.putpalette(palette.tobytes())
    data = io.BytesIO()
    layer.save(data, "PNG", transparency=bytes(opacity), compress_level=3)
    source = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img class="ann-layer" alt="" src="data:image/png;base64,{source}">'


def _shrunk(mask: Mask, width: int) -> Mask:
    """The mask without its outermost pixels, `width` of them."""
    for _ in range(width):
        padded = np.pad(mask, 1, mode="edge")
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _label(word: str, mask: Mask, colour: str, active: bool) -> str:
    """The word at the pixel of its mask that is nearest to the mask's centroid."""
    step = max(1, max(mask.shape) // 200)
    rows, columns = np.nonzero(mask[::step, ::step])
    if not len(rows):
        rows, columns = np.nonzero(mask)
        step = 1
    best = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    left = _percent(int(columns[best]) * step + 0.5, mask.shape[1])
    top = _percent(int(rows[best]) * step + 0.5, mask.shape[0])
    kind = "ttd-sign ann-sign" + (" ann-on" if active else "")
    return f'<span class="{kind}" style="left:{left};top:{top};border-color:{colour}">{escaped(word)}</span>'


def _marks(prompts: Prompts, width: int, height: int) -> str:
    """Points as a plus (inside) or a cross (outside), boxes as dashed frames; outlines as data for the script."""
    parts = []
    if prompts.outlines is not None:
        shapes = json.dumps(prompts.outlines, separators=(",", ":"))
        parts.append(
            f'<svg class="ann-outline" viewBox="-0.5 -0.5 {width} {height}" preserveAspectRatio="none" '
            f'data-outlines="{shapes}"></svg>'
        )
    for box in prompts.boxes:
        parts.append(
            f'<i class="ann-box" style="left:{_percent(box.left, width)};top:{_percent(box.top, height)};'
            f"width:{_percent(box.right - box.left + 1, width)};"
            f'height:{_percent(box.bottom - box.top + 1, height)}"></i>'
        )
    for point in prompts.points:
        kind, sign = ("ann-in", "+") if point.inside else ("ann-out", "×")
        left, top = _percent(point.x + 0.5, width), _percent(point.y + 0.5, height)
        parts.append(f'<i class="ann-point {kind}" style="left:{left};top:{top}">{sign}</i>')
    return "".join(parts)


def word_colours(words: Sequence[str]) -> dict[str, str]:
    """A colour for each of a caption's words, chosen or not; the strongest ones for words that are not stop words."""
    order = sorted(words, key=is_stop_word)
    return {word: css_colour(colour) for word, colour in zip(order, class_colours(len(order)), strict=True)}


def _keys(keys: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt><kbd>{escaped(key)}</kbd></dt><dd>{escaped(meaning)}</dd>" for key, meaning in keys)
    return (
        '<div class="ann-help" role="dialog" aria-label="Keys" hidden>'
        f'<dl>{rows}</dl><button data-do="help">Close <kbd>Esc</kbd></button></div>'
    )


def _off(off: bool) -> str:
    return "disabled" if off else ""


def _percent(value: float, whole: int) -> str:
    return f"{100 * value / whole:.2f}%"
