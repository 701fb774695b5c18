"""Text as the web has it: HTML entities, broken encodings, odd spaces."""

from __future__ import annotations

import html
import re

# As in `html.unescape`, which tells which of them are entities.
_ENTITY = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
Span = tuple[int, int]


def clean(text: str) -> str:
    """A text as OpenAI's tokenizer takes it: broken encodings repaired (ftfy), entities replaced twice, one space.

    Source: `basic_clean` and `whitespace_clean` of `simple_tokenizer.py` in github.com/openai/CLIP.
    """
    if "&" not in text and text.isascii() and text.isprintable():
        return " ".join(text.split())  # what is spelled out below changes nothing else here
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def unescaped(text: str) -> tuple[str, list[Span] | None]:
    """A text with its HTML entities replaced, twice as the tokenizer does: what words it has is to be seen.

    Returns:
        the text, and for each of its characters from where to where it stands in the text as it was written; None
        where nothing was replaced.
    """
    if "&" not in text or html.unescape(text) == text:
        return text, None
    spans = [(at, at + 1) for at in range(len(text))]
    for _ in range(2):
        text, spans = _replaced(text, spans)
    return text, spans


def _replaced(text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    pieces: list[str] = []
    places: list[Span] = []
    at = 0
    for found in _ENTITY.finditer(text):
        new = html.unescape(found[0])
        pieces += [text[at : found.start()], new]
        places += spans[at : found.start()]
        places += [(spans[found.start()][0], spans[found.end() - 1][1])] * len(new)
        at = found.end()
    return "".join((*pieces, text[at:])), [*places, *spans[at:]]
