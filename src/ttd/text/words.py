"""A caption -> its words, the tag candidates: no parser, no language model (paper, section 3.1); and the templates that
words are put into, by name: "openai80", "maskclip85", "tcl9", "simple", "none" (the bare text).

CC3M's captions arrive tokenised ("a spider 's web ."), so free text is tokenised the same way first:
punctuation is separate, and so are "'s" and "n't", hyphenated words stay together. Text that is already
tokenised this way does not change. HTML entities are decoded. Languages that write without spaces
are not segmented (`is_unspaced`)."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from ttd.errors import InputError
from ttd.files.documents import parse_json

_FUNCTION_WORDS = """
a an the this that these those some any no every each either neither both all such another other i
me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its
itself we us our ours ourselves they them their theirs themselves one's who whom whose which what
there here where when why how and or but nor so yet if because as while than then though although
whether until unless of in on at by for with without to from into onto upon over under above below
between among through during before after against about around along across behind beside besides
beneath near off out up down inside outside toward towards within via per like amid amongst is am
are was were be been being has have had having do does did doing done will would shall should can
could may might must ought get gets got not only own same too very just also again once ever never
more most much many few less least 's 're 've 'm 'd 'll n't 't ca wo s t
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())

_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "mt", "prof"})
_IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "mice": "mouse", "knives": "knife", "geese": "goose",
    "calves": "calf", "shelves": "shelf", "policemen": "policeman", "gentlemen": "gentleman", "buses": "bus",
    "busses": "bus", "loaves": "loaf", "leaves": "leaf", "wolves": "wolf", "people": "people", "skis": "skis",
}  # fmt: skip
# Not after what joins two parts of a word, which would be left over: 0'n't
_SUFFIX = re.compile(r"(?i)(?<=[^-‐‑'’&@.,:/])(?:n['’]t|['’](?:s|m|d|re|ve|ll))$")
_SUFFIX_MOST = 3  # characters
_CLITICS = frozenset({"s", "m", "d", "re", "ve", "ll", "t"})


class _Kinds(dict[int, str]):
    """A character's kind, for `str.translate`; filled as characters turn up.

    w letter (U if a capital), d digit, e emoji, r flag letter, m what modifies the character before it,
    j joiner, space; punctuation and symbols stay themselves.
    """

    def __missing__(self, code: int) -> str:
        kind = self[code] = _kind(code)
        return kind


def _kind(code: int) -> str:
    if code in (0xFE0E, 0xFE0F, 0x20E3) or 0x1F3FB <= code <= 0x1F3FF or 0xE0020 <= code <= 0xE007F:
        return "m"
    if 0x1F1E6 <= code <= 0x1F1FF:
        return "r"
    if code == 0x200D:
        return "j"
    if 0x2600 <= code <= 0x27BF or 0x1F000 <= code <= 0x1FAFF:
        return "e"
    if code in (0x2010, 0x2011):
        return "-"
    if code == 0x2019:
        return "'"
    char = chr(code)
    category = unicodedata.category(char)
    if category in ("Lu", "Lt"):
        return "U"
    if category[0] in "LM" or code in (0x5F, 0x200C, 0xAD):
        return "w"
    if category[0] == "N":
        return "d"
    if category[0] in "ZC":
        return " "
    return char


_KINDS = _Kinds()
_TOKEN = re.compile(
    r"""
      (?:[wU]\.){2,}                        # u.s.
    | [wdU][wdUmj]*                         # a word, and what may join it to the next part:
      (?:
        (?: [-'&@]                          #   mother-in-law  o'clock  r&b  a@b
          | \.(?=[wd])                      #   example.com  3.5  (not "grass.The")
          | (?<=d)[,:/](?=d)                #   1,000  10:30  1/2
        )
        [wdU][wdUmj]*
      )*
    | rr                                    # a flag
    | em*(?:jem*)*                          # an emoji, joined ones together
    | [.?!]{2,}
    | ([^\s\w])\1*                          # punctuation, repeated marks together
    | \S
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Word:
    """A token of a caption.

    Attributes:
        text: as written, HTML entities replaced.
        index: position among all tokens of the caption, also those that were left out.
        start, end: characters, `caption[start:end] == text` where that holds no entity.
    """

    text: str
    index: int
    start: int
    end: int


def split_words(caption: str, stop_words: bool = False, *, tokenised: bool = False) -> list[Word]:
    """Split a caption into words, every occurrence, in order.

    Args:
        caption: free text or a tokenised caption, any length.
        stop_words: leave out `STOP_WORDS` and tokens that are only punctuation.
        tokenised: the caption's white space already is the split (CC3M): nothing else is taken apart.
    """
    text, places = unescaped(caption)
    spans = [m.span() for m in re.finditer(r"\S+", text)] if tokenised else _spans(text)
    words = [Word(text[start:end], i, start, end) for i, (start, end) in enumerate(spans)]
    if places is not None:
        words = [replace(word, start=places[word.start][0], end=places[word.end - 1][1]) for word in words]
    return [word for word in words if not is_stop_word(word.text)] if stop_words else words


def is_stop_word(text: str) -> bool:
    """Whether a token is a function word, a clitic or nothing but punctuation."""
    return text.lower().replace("’", "'") in STOP_WORDS or is_punctuation(text)


def is_punctuation(text: str) -> bool:
    """Whether a token is nothing but punctuation and symbols; emoji are words."""
    return not any(_KINDS[ord(char)] in "wUdre" for char in text)


# Scripts without spaces between words, and how many characters in a row are more than one word.
_UNSPACED = (
    (3, re.compile("[\u3005-\u3007\u3040-\u309f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")),  # Han, hiragana
    (9, re.compile("[\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u30a0-\u30ff]")),  # Thai, Lao, Khmer, katakana ...
)
UNSPACED_REMEDY = "words that are written without spaces count as one: name words with --tags, or use a --tagger"


def is_unspaced(caption: str) -> bool:
    """Whether a caption has words in a script without spaces (Chinese, Japanese, Thai ...) that were not parted."""
    if caption.isascii():
        return False
    return any(len(letters.findall(word.text)) >= most for word in split_words(caption) for most, letters in _UNSPACED)


def distinct(texts: Iterable[str]) -> tuple[list[str], list[int]]:
    """Distinct texts, case aside (the text towers lower-case), in order of first occurrence.

    Returns:
        the distinct texts in lower case, and for every given text its position among them.
    """
    places: dict[str, int] = {}
    indices = [places.setdefault(text.lower(), len(places)) for text in texts]
    return list(places), indices


def singulars(word: str) -> tuple[str, ...]:
    """A word, and what it may be the plural of: "boxes" -> boxes, box, boxe."""
    if word in _IRREGULAR:
        return word, _IRREGULAR[word]
    forms = [word]
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        forms.append(word[:-1])
    return tuple(forms)


def _spans(caption: str) -> list[tuple[int, int]]:
    """Character spans of the tokens."""
    spans: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(caption.translate(_KINDS)):
        start, end = match.span()
        if _joins_previous(caption, spans, start, end):
            spans[-1] = (spans[-1][0], end)
            continue
        suffixes: list[tuple[int, int]] = []
        while suffix := _SUFFIX.search(caption, max(start + 1, end - _SUFFIX_MOST), end):  # two of I'd've
            suffixes.append(suffix.span())
            end = suffix.start()
        spans += [(start, end), *reversed(suffixes)]
    return spans


def _joins_previous(caption: str, spans: list[tuple[int, int]], start: int, end: int) -> bool:
    """Whether a token belongs to the one before: the s of a lone 's, the full stop of mr."""
    if not spans or spans[-1][1] != start:
        return False
    first, last = spans[-1]
    before, token = caption[first:last].lower(), caption[start:end].lower()
    if before in ("'", "’"):
        apart = first == 0 or caption[first - 1].isspace()
        return apart and token in _CLITICS
    return token == "." and before in _ABBREVIATIONS


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


def templates(which: str | Sequence[str]) -> tuple[str, ...]:
    """The templates of a name, a single template, or the caller's own list; each has `{}` for the text.

    Raises:
        InputError: an unknown name, an empty list, or a template without `{}`.
    """
    if isinstance(which, str):
        chosen = _named().get(which) or ((which,) if "{}" in which else ())
        if not chosen:
            raise InputError(f"unknown templates {which!r}: choose from {', '.join(_named())}, or write one with {{}}")
        return chosen
    chosen = tuple(which)
    if not chosen or any("{}" not in template for template in chosen):
        raise InputError("templates: give at least one, each with {} where the text goes")
    return chosen


@cache
def _named() -> dict[str, tuple[str, ...]]:
    content = parse_json(files("ttd").joinpath("assets/templates.json").read_bytes())
    return {name: tuple(lines) for name, lines in content.items()}


def printable(text: str) -> str:
    """A text for one line of a terminal or page: control characters become spaces, lone surrogates "?"."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() else " " for c in text)
