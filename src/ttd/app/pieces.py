"""Pieces of HTML that the page is made of: escaped text, pictures inside the text, figures."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from ttd.colours import scale
from ttd.lettering import clean


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


def image(picture: Image.Image, alt: str, kind: str = "") -> str:
    """An `<img>` that carries its pixels, so that nothing lies about on the server's disk."""
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=88, method=2)
    source = base64.b64encode(data.getvalue()).decode("ascii")
    return f'<img class="{kind}" alt="{text(alt)}" src="data:image/webp;base64,{source}">'


def figure(content: str, title: str, note: str = "") -> str:
    """A picture (as HTML) with a title and a short note under it."""
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
    sentence += ("" if sentence.endswith((".", ")", "!", "?")) else ".")
    return f'<div class="ttd-notice ttd-{kind}" role="{role}">{sign}{text(sentence)}</div>'
