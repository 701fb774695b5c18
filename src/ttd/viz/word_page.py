"""A page of pairs with the words of their captions coloured, and maps: one HTML file, nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from ttd.data.word_table import Token
from ttd.text.words import printable
from ttd.viz.overlays import bounded, heatmap_overlay, inline_image

SIDE = 320  # pixels of an image on the page

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:1.2em;color:#141414;background:#fff;max-width:75em}
h1{font-size:1.5em;margin:.2em 0}section{border:1px solid #ccc;border-radius:6px;padding:.6em .7em;margin:.8em 0}
h2{font-size:.9em;margin:0 0 .4em;color:#444;font-weight:600;overflow-wrap:anywhere}
p.caption{margin:.3em 0;line-height:2}.row{display:flex;flex-wrap:wrap;gap:8px;margin:.3em 0}
figure{margin:0;width:160px}figure.photo{width:240px}figure img{width:100%;display:block}
figcaption{font-size:13px;overflow-wrap:anywhere}
.w{border-radius:4px;padding:.1em .25em;overflow-wrap:anywhere}.on{background:#0072b2;color:#fff}
.low{color:#5f5f5f}.unknown{text-decoration:underline dotted 2px}.none{color:#8a3b00;font-size:13px}
@media(max-width:480px){body{margin:.6em}figure,figure.photo{width:calc(50% - 4px)}}
"""


@dataclass(frozen=True)
class PairView:
    """One pair as it is shown.

    Attributes:
        name: shard and key.
        image: RGB.
        captions: with the tokens of each; None where the tagger gave no answer.
        maps: by word, values 0..1 on any grid `[h,w]`.
    """

    name: str
    image: Image.Image
    captions: Sequence[tuple[str, Sequence[Token] | None]]
    maps: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)


def word_page(title: str, about: str, pairs: Iterable[PairView]) -> str:
    """The HTML of the page; `about` says what is shown."""
    key = (
        "<p class=caption><span class='w on'>visible</span> <span class=w style='background:rgba(230,159,0,.6)'>"
        "not visible, high score</span> <span class='w low'>function word, punctuation</span> "
        "<span class='w unknown'>outside the model's vocabulary</span></p>"
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{escape(about)}</p>{key}{''.join(_pair(pair) for pair in pairs)}</body></html>\n"
    )


def _pair(pair: PairView) -> str:
    figures = [_figure("", bounded(pair.image, SIDE), "photo")]
    figures += [_figure(word, heatmap_overlay(pair.image, heat, side=SIDE)) for word, heat in pair.maps.items()]
    captions = "".join(f"<p class=caption>{_caption(text, tokens)}</p>" for text, tokens in pair.captions)
    return (
        f"<section><h2>{escape(printable(pair.name))}</h2>{captions}<div class=row>{''.join(figures)}</div></section>"
    )


def _figure(title: str, image: Image.Image, kind: str = "") -> str:
    caption = f"<figcaption>{escape(printable(title))}</figcaption>" if title else ""
    alt = escape(printable(title)) or "the image"
    return f"<figure class='{kind}'><img alt='{alt}' loading=lazy src='{inline_image(image)}'>{caption}</figure>"


def _caption(text: str, tokens: Sequence[Token] | None) -> str:
    """The caption with its tokens marked where they stand; words that it does not have come behind."""
    if tokens is None:
        return f"{escape(printable(text))} <span class=none>(no answer of the tagger)</span>"
    scores = [token.score for token in tokens if token.score is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 0.0)
    parts, end = [], 0
    for token in tokens:
        if token.word is None:
            continue
        if token.start is None or token.end is None or token.start < end:
            parts.append(f" {_word(token, low, high)}")
            continue
        parts += [escape(printable(text[end : token.start])), _word(token, low, high, text[token.start : token.end])]
        end = token.end
    if not any(token.selected for token in tokens):
        parts.append(" <span class=none>(nothing visible)</span>")
    return "".join(parts)


def _word(token: Token, low: float, high: float, text: str | None = None) -> str:
    kinds, style = ["w"], ""
    if token.selected:
        kinds.append("on")
    elif token.is_stop or token.is_punct:
        kinds.append("low")
    elif token.score is not None:
        strength = 0.6 * (token.score - low) / max(high - low, 1e-9)
        style = f" style='background:rgba(230,159,0,{strength:.2f})'"
    if token.is_unknown:
        kinds.append("unknown")
    told = [] if token.score is None else [f"score {token.score:.3f}"]
    told += [] if token.percentile is None else [f"percentile {token.percentile:.0f}"]
    title = f" title='{', '.join(told)}'" if told else ""
    return f"<span class='{' '.join(kinds)}'{style}{title}>{escape(printable(text or token.word or ''))}</span>"
