"""The annotator's page as HTML: what a tab shows at a moment. The page's script only moves the mouse's news here."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from ttd.annotate.annotation_set import AnnotationSet, Progress
from ttd.annotate.item import MOST_CHARACTERS, Work
from ttd.annotate.map_masks import Mask
from ttd.annotate.prompts import Prompts
from ttd.annotate.records import Record
from ttd.app.annotate.actions import Tab
from ttd.app.html import css_colour, img, notice, text
from ttd.inference.masks import nearest
from ttd.text.words import is_stop_word, split_words
from ttd.viz.colours import class_colours
from ttd.viz.overlays import bounded

SIDE = 900  # pixels of the longer side as it is shown
_LEAST = 600  # the same for the masks of smaller images
_FILL, _FILL_ACTIVE = 80, 120  # opacity of the colours, of 255
_IMAGES: WeakKeyDictionary[Work, str] = WeakKeyDictionary()

KEYS = (
    ("A", "accept"), ("S", "skip"), ("N P", "next, previous"), ("U", "undo"), ("← →", "word"), ("1-9", "n-th word"),
    ("X", "drop word"), ("D B F", "dots, box, free hand"), ("O", "outside"), ("C", "clear"), ("R", "propose again"),
    ("H", "hide masks"), ("+ −", "brush"), ("Esc", "forget corner"),
)  # fmt: skip
REVIEW_KEYS = (("K", "keep"), ("X", "reject"), ("P", "one back"), ("E", "change it"), ("H", "hide masks"))


def tab_html(annotations: AnnotationSet, tab: Tab, number: int) -> str:
    """All that the tab shows; `number` is another one each time, so that the page notices every answer."""
    inner = _review(annotations, tab.record) if tab.reviewing else _annotate(tab.work)
    item = tab.work.item.number if tab.work and not tab.reviewing else -1
    told = notice(tab.message, "error" if tab.failed else "info") if tab.message else ""
    return (
        f'<div class="ann" data-answer="{number}" data-item="{item}" data-reviewing="{int(tab.reviewing)}">'
        f'{_head(annotations.progress(), tab)}<div class="ann-told">{told}</div>{inner}</div>'
    )


def _head(progress: Progress, tab: Tab) -> str:
    """Which pass, and how far it is."""
    done = progress.accepted + progress.skipped
    passes = "".join(
        f'<button data-do="{name}" aria-pressed="{str(on).lower()}">{label}</button>'
        for name, label, on in (
            ("annotate", "Annotate", not tab.reviewing),
            ("review", "Second pass", tab.reviewing),
        )
    )
    place = f"item {tab.work.item.number + 1} of {progress.total}" if tab.work and not tab.reviewing else ""
    counts = f"{progress.accepted} accepted, {progress.skipped} skipped, {progress.left} left"
    if progress.kept or progress.rejected:
        counts += f"; {progress.kept} kept, {progress.rejected} rejected"
    return (
        f'<div class="ann-head"><span class="ann-passes">{passes}</span><b>{place}</b>'
        f'<progress max="{progress.total}" value="{done}"></progress><span class="ann-counts">{counts}</span></div>'
    )


def _annotate(work: Work | None) -> str:
    if work is None:
        return '<p class="ann-done">Nothing is left to annotate. <button data-do="previous">Previous (P)</button></p>'
    colours, masks = word_colours(work.words), work.masks()
    stage = _stage(_image(work), work.image.size, masks, colours, work.active, work.prompts)
    state = {"accepted": "accepted before", "skipped": "skipped before"}.get(work.status, "")
    panel = (
        f"{_chosen(work, masks, colours)}{_tools(work)}"
        f'<div class="ann-decide"><button data-do="accept" class="ann-main">Accept <kbd>A</kbd></button>'
        f'<button data-do="skip">Skip <kbd>S</kbd></button><button data-do="undo" {_off(not work.steps)}>Undo '
        f'<kbd>U</kbd></button><button data-do="previous">‹ <kbd>P</kbd></button>'
        f'<button data-do="next"><kbd>N</kbd> ›</button></div>{_keys(KEYS)}'
    )
    note = f'<span class="ann-state">{state}</span>' if state else ""
    return (
        f'{_typed(work)}<div class="ann-caption">{_caption(work, colours)}{note}</div>'
        f'<div class="ann-columns">{stage}<div class="ann-panel">{panel}</div></div>'
    )


def _typed(work: Work) -> str:
    """Where the caption of an image that has none is typed."""
    if not work.content.typed:
        return ""
    return (
        f'<div class="ann-typed"><input type="text" maxlength="{MOST_CHARACTERS}" value="{text(work.content.caption)}" '
        'aria-label="Caption" placeholder="This image has no caption: type what it shows">'
        '<button data-do="caption">Take it <kbd>Enter</kbd></button></div>'
    )


def _caption(work: Work, colours: Mapping[str, str]) -> str:
    """The caption's words as buttons; punctuation as text."""
    parts, able, chosen = [], set(work.words), set(work.true)
    for token in work.tokens:
        word = token.text.lower()
        if word not in able:
            parts.append(f'<span class="ann-mark">{text(token.text)}</span>')
            continue
        kind = "ann-word" + (" ann-chosen" if word in chosen else "") + (" ann-active" if word == work.active else "")
        kind += " ann-small" if is_stop_word(word) else ""
        parts.append(
            f'<button class="{kind}" data-do="press" data-word="{text(word)}" style="--word:{colours[word]}" '
            f'aria-pressed="{str(word in chosen).lower()}">{text(token.text)}</button>'
        )
    return " ".join(parts)


def _chosen(work: Work, masks: Mapping[str, Mask], colours: Mapping[str, str]) -> str:
    """A row for each chosen word: its colour, its share of the image."""
    rows = []
    for place, word in enumerate(work.true):
        kind = ' class="ann-active"' if word == work.active else ""
        share = f"{masks[word].mean():.0%}" if masks[word].any() else "no pixel"
        rows.append(
            f'<li{kind}><button data-do="choose" data-place="{place}"><i style="background:{colours[word]}"></i>'
            f"<b>{text(word)}</b><span>{share}</span></button></li>"
        )
    if not rows:
        return '<p class="ttd-hint">Click the words above that are truly in the image.</p>'
    return f'<ol class="ann-list">{"".join(rows)}</ol>'


def _tools(work: Work) -> str:
    """How a click on the image is meant; the script marks what is switched on."""
    source = "SAM-HQ draws the masks." if work.by == "sam-hq" else "Masks are cut from the model's map."
    slider = (
        f'<label class="ann-cut">Cut of the map <output>{work.cut:.2f}</output>'
        f'<input type="range" min="0" max="1" step="0.01" value="{work.cut:.2f}" data-do="cut" {_off(not work.active)}>'
        "</label>"
    )
    return (
        '<div class="ann-tools"><span class="ann-group"><button data-mode="point">Dots <kbd>D</kbd></button>'
        '<button data-mode="box">Box <kbd>B</kbd></button>'
        '<button data-mode="brush">Free hand <kbd>F</kbd></button></span>'
        '<button data-switch="outside" aria-pressed="false">Outside <kbd>O</kbd></button>'
        f'<span class="ann-group"><button data-do="clear" {_off(not work.active)}>Clear <kbd>C</kbd></button>'
        f'<button data-do="again" {_off(not work.active)}>Again <kbd>R</kbd></button></span></div>{slider}'
        f'<p class="ttd-hint">{source} Click: inside; shift-click: outside; drag: a box.</p>'
    )


def _review(annotations: AnnotationSet, record: Record | None) -> str:
    if record is None:
        return ""
    words = tuple(dict.fromkeys(record.words))
    colours = word_colours(words)
    image = annotations.image_of(record)
    shown = img(bounded(image, SIDE), record.caption, "ann-image")
    stage = _stage(shown, image.size, record.masks, colours, None, Prompts())
    spans = []
    for token in split_words(record.caption):
        word = token.text.lower()
        kind = "ann-word ann-chosen" if word in record.true else "ann-word ann-small"
        spans.append(f'<span class="{kind}" style="--word:{colours.get(word, "#888888")}">{text(token.text)}</span>')
    panel = (
        f'<p class="ttd-hint">{text(record.id)}, {record.by}, {record.time[:10]}</p>'
        '<div class="ann-decide"><button data-do="keep" class="ann-main">Keep <kbd>K</kbd></button>'
        '<button data-do="reject">Reject <kbd>X</kbd></button><button data-do="back">‹ Back <kbd>P</kbd></button>'
        f'<button data-do="edit">Change it <kbd>E</kbd></button></div>{_keys(REVIEW_KEYS)}'
    )
    return (
        f'<div class="ann-caption">{" ".join(spans)}</div>'
        f'<div class="ann-columns">{stage}<div class="ann-panel">{panel}</div></div>'
    )


def _image(work: Work) -> str:
    """The image as HTML, made once for an open item."""
    if work not in _IMAGES:
        _IMAGES[work] = img(bounded(work.image, SIDE), work.content.caption, "ann-image")
    return _IMAGES[work]


def _stage(
    shown: str,
    size: tuple[int, int],
    masks: Mapping[str, Mask],
    colours: Mapping[str, str],
    active: str | None,
    prompts: Prompts,
) -> str:
    """The image (as HTML), the masks over it, the words at their places, the active word's points and boxes."""
    width, height = size
    # The masks of a small image are drawn larger, or their edges would cover it.
    factor = min(max(1.0, _LEAST / max(size)), SIDE / max(size))
    upper = _layer(masks, colours, active, (max(1, round(height * factor)), max(1, round(width * factor))))
    signs = "".join(_sign(word, mask, colours[word], word == active) for word, mask in masks.items() if mask.any())
    return (
        f'<div class="ann-stage" data-width="{width}" data-height="{height}" style="aspect-ratio:{width}/{height};'
        f'--ratio:{width / height:.4f}">{shown}{upper}{signs}'
        f"{_marks(prompts, width, height)}</div>"
    )


def _layer(masks: Mapping[str, Mask], colours: Mapping[str, str], active: str | None, size: tuple[int, int]) -> str:
    """An image of the masks: number n of the palette is the n-th word's area, 128 + n its edge."""
    order = sorted(masks, key=lambda word: word == active)  # the active word lies on top
    numbers = {word: 1 + place % 127 for place, word in enumerate(masks)}
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


def _sign(word: str, mask: Mask, colour: str, active: bool) -> str:
    """The word at the pixel of its mask that is nearest to the mask's middle."""
    step = max(1, max(mask.shape) // 200)
    rows, columns = np.nonzero(mask[::step, ::step])
    if not len(rows):
        rows, columns = np.nonzero(mask)
        step = 1
    best = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    left = _percent(int(columns[best]) * step + 0.5, mask.shape[1])
    top = _percent(int(rows[best]) * step + 0.5, mask.shape[0])
    kind = "ttd-sign ann-sign" + (" ann-on" if active else "")
    return f'<span class="{kind}" style="left:{left};top:{top};border-color:{colour}">{text(word)}</span>'


def _marks(prompts: Prompts, width: int, height: int) -> str:
    """Points as a plus (inside) or a cross (outside), boxes as dashed frames."""
    parts = []
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
    """A colour for each word that stays with it while words come and go; the strongest for what is no stop word."""
    order = sorted(words, key=is_stop_word)
    return {word: css_colour(colour) for word, colour in zip(order, class_colours(len(order)), strict=True)}


def _keys(keys: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<span><kbd>{text(key)}</kbd> {text(meaning)}</span>" for key, meaning in keys)
    return f'<div class="ann-keys">{rows}</div>'


def _off(off: bool) -> str:
    return "disabled" if off else ""


def _percent(value: float, whole: int) -> str:
    return f"{100 * value / whole:.2f}%"
