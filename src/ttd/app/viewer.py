"""What `viewer.js` draws on the canvas of the Explore tab: the image, and all maps and labels, in one answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ttd.app.answers import CaptionResult, PageAnswer, WordsResult
from ttd.app.html import colour_bar, css_colour, escaped, hidden_png, img, name_positions, notes_html, words_html
from ttd.results import Segmentation
from ttd.viz.overlays import class_colours, scale

SCRIPT = "".join((Path(__file__).parent / name).read_text("utf-8") for name in ("zoom.js", "viewer.js"))
_LAYERS = (
    ("image", "Image"),
    ("caption", "Caption"),
    ("both", "Before | after"),
    ("mask", "Mask"),
    ("best", "Most similar"),
    ("segments", "Labels"),
)
_TOOLS = (
    ("out", "−", "Zoom out"),
    ("fit", "Fit", "Fit the image"),
    ("in", "+", "Zoom in"),
    ("full", "Full screen", "Full screen"),
)
_KEYS = "Image: plus and minus zoom, arrows move, 0 fits, F is full screen, Enter names the words at the centre"
_ENLARGED = 1024  # pixels of the canvas' longer side, also of a smaller image


def viewer_html(found: PageAnswer) -> str:
    """The caption's words as buttons, the layers, the canvas, and what does not depend on the threshold as data."""
    words = found.words
    assert words is not None
    indices = {text: number for number, text in enumerate(words.texts)}
    maps = "".join(hidden_png(f"w{indices[name]}", heat) for name, heat in words.maps.items())
    factor = _ENLARGED / max(found.canvas.size)
    width, height = (max(1, round(side * factor)) for side in found.canvas.size)
    data = {
        "words": words.texts,
        "first": f"w{indices[next(iter(words.maps))]}",
        "scale": base64.b64encode(scale().tobytes()).decode("ascii"),
        "grid": _grid(words),
    }
    layers = "".join(
        f'<button data-layer="{name}" data-name="{label}" aria-pressed="false">{label}</button>'
        for name, label in _LAYERS
    )
    tools = "".join(
        f'<button data-do="{do}" aria-label="{about}" title="{about}">{sign}</button>' for do, sign, about in _TOOLS
    )
    return (
        f'<div class="ttd-view" data-view="{escaped(json.dumps(data))}">{words_html(words)}'
        f'<div class="ttd-bar-of-layers"><span role="group" aria-label="Layer over the image">{layers}</span>'
        '<label>Opacity <input type="range" data-field="opacity" min="0" max="1" step="0.05"></label>'
        f'<span role="group" aria-label="View">{tools}<output data-zoom-value>100 %</output></span></div>'
        f'<div class="ttd-window" tabindex="0" role="group" style="--ratio:{width / height:.4f}" aria-label="{_KEYS}">'
        f'<div class="ttd-zoomed"><canvas width="{width}" height="{height}" role="img" aria-label="The image"></canvas>'
        '<span class="ttd-signs"></span><i class="ttd-spot" hidden></i></div></div>'
        '<label class="ttd-split" data-part="split" hidden>before '
        '<input type="range" data-field="split" min="0" max="1" step="0.01"> after</label>'
        '<p class="ttd-scale"><b data-part="shown"></b>'
        f'<span data-part="bar">{colour_bar("lowest ", " highest")}</span>'
        '<span data-part="here" aria-live="polite" hidden></span></p>'
        f"{notes_html(words.tagging, found.vocabulary_size)}"
        f"<div hidden>{img(found.canvas, '', source='image')}{maps}</div></div>"
    )


def layers_html(captions: Sequence[CaptionResult], segmentation: Segmentation | None) -> str:
    """What depends on the threshold, as data: the caption's maps, its mask, and the labels."""
    after = captions[-1]
    parts = [hidden_png("caption", after.heat), hidden_png("mask", after.mask.astype(np.float32))]
    if len(captions) > 1:
        parts.append(hidden_png("before", captions[0].heat))
    data: dict[str, Any] = {"signs": [], "colours": []}
    if segmentation is not None:
        labels = segmentation.label_map
        background = segmentation.background is not None
        colours = class_colours(len(segmentation.names) - background)
        data["colours"] = [*([None] if background else []), *colours.tolist()]
        data["signs"] = [
            {"name": segmentation.names[index], "x": x, "y": y, "colour": css_colour(colours[index - background])}
            for index, (x, y) in name_positions(labels, background=background).items()
        ]
        parts.append(hidden_png("segments", labels.astype(np.uint8)))
    return f'<div class="ttd-layers-data" hidden data-view="{escaped(json.dumps(data))}">{"".join(parts)}</div>'


def _grid(words: WordsResult) -> dict[str, Any]:
    """The cosines of every patch with every word, as 16-bit steps from the lowest to the highest."""
    low, high = float(words.sim.min()), float(words.sim.max())
    steps = np.round((words.sim - low) / max(high - low, 1e-12) * 65535).astype("<u2")
    return {
        "words": len(words.texts),
        "rows": words.sim.shape[1],
        "columns": words.sim.shape[2],
        "low": low,
        "high": high,
        "values": base64.b64encode(steps.tobytes()).decode("ascii"),
        "colours": class_colours(len(words.texts)).tolist(),
    }
