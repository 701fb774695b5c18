"""What a language model answered -> the words that it names, whatever it wrapped them in.

Tried in this order: a JSON value, a list in brackets that is no JSON, bullets or numbers, words in quotation marks,
one short line each, words with commas between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ttd.taggers.base import Caption, Chosen
from ttd.text.words import is_stop_word, split_words

MOST = 500  # entries of one answer that are read
LONGEST = 8_000  # characters of one answer that are read, after its thoughts
LONGEST_ENTRY = 80

_THOUGHT = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_BRACKETS = re.compile(r"\[([^\[\]]*)(\]|\Z)")
_BULLET = re.compile(r"^\s*(?:[-*•–+]|\(?\d{1,3}[.):])\s+(\S.*)$")
_QUOTED = re.compile(r"[\"“”]([^\"“”\n]{1,60})[\"“”]|(?<!\w)['‘`]([^'‘’`\n]{1,60})['’`](?!\w)")
_EXPLANATION = re.compile(r"\s+[-–—(=].*$|:\s.*$|:$")
_NOTHING = re.compile(r"(?i)^\W*(?:none|nothing|n/?a|empty|no (?:\w+ ){0,3}(?:words?|tags?|objects?|things?)\b.*)\W*$")
_LEAD = re.compile(
    r"(?i)^[^,]{0,200}?\b(?:words?|tags?|objects?|things?|list|answer|caption|output|entries)\b"
    r"[^,:]{0,200}?(?::|\b(?:are|is)\b)"
)
_PUNCTUATION = " \t\r\n\"'“”‘’`*_.,;:!?[](){}<>\\"


def read_answer(text: str) -> list[str] | None:
    """The entries of an answer, as written but for quotation marks; None where no list is found in it."""
    text = _without_thoughts(text).strip()[:LONGEST]
    fence = _FENCE.search(text)
    for part in (fence[1], text) if fence else (text,):
        for read in (_json, _bracketed, _bullets, _plain):
            found = read(part.strip())
            if found is None:
                continue
            entries = [clean for entry in found[:MOST] if (clean := _clean(entry))]
            if entries or not found:
                return entries
    return None


def choose_words(entries: list[str], caption: Caption, *, ignore_others: bool = False) -> Chosen:
    """Entries laid onto the caption's words, letter case aside.

    An entry of several words stands for each of them but the stop words; a word counts at every place where the
    caption has it.

    Args:
        entries: of `read_answer`.
        caption: whose words are chosen.
        ignore_others: leave out what the caption does not have.
    """
    own = {_folded(word) for word in caption.words}
    named: dict[str, None] = {}
    for entry in entries:
        named.update(dict.fromkeys(_words(_folded(entry), own)))
    others = () if ignore_others else tuple(word for word in named if word not in own)
    return Chosen(tuple(_folded(word) in named for word in caption.words), others)


def _words(entry: str, own: set[str]) -> list[str]:
    """Its words as the caption splits them, or else as we do."""
    if entry in own:
        return [entry]
    pieces: list[str] = []
    for piece in entry.split():
        pieces += [piece] if piece in own else [word.text for word in split_words(piece)]
    meaningful = [piece for piece in pieces if not is_stop_word(piece)]
    return meaningful if meaningful or len(pieces) > 1 else pieces


def _without_thoughts(text: str) -> str:
    """What stands after the last thought, and before one that was incomplete."""
    marks = list(_THOUGHT.finditer(text))
    closed = max((i for i, mark in enumerate(marks) if mark[1]), default=-1)
    start = marks[closed].end() if closed >= 0 else 0
    return text[start : marks[closed + 1].start()] if closed + 1 < len(marks) else text[start:]


def _clean(entry: str) -> str:
    """Without quotation marks and punctuation around it; nothing where it is longer than a phrase."""
    clean = entry.replace("\\'", "'").strip(_PUNCTUATION)
    return clean if len(clean) <= LONGEST_ENTRY else ""


def _folded(word: str) -> str:
    return word.lower().replace("’", "'")


def _json(text: str) -> list[str] | None:
    """The first JSON value in the text that holds strings, or is an empty list."""
    decoder = json.JSONDecoder()
    position = 0
    while (start := _first(text, "[{", position)) >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except RecursionError:
            return None
        except ValueError:
            position = start + 1
            continue
        found = list(_strings(value))
        if found or value in ([], {}) or (isinstance(value, dict) and not any(value.values())):
            return found
        position = end
    return None


def _strings(value: Any) -> Iterator[str]:
    """Of {"words": ["dog"]}, [{"word": "dog"}], {"dog": true} and the like: dog."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if one is True:
                yield name
            else:
                yield from _strings(one)


def _bracketed(text: str) -> list[str] | None:
    """`['dog', 'grass']`, `[dog, grass]`, and a list that was incomplete, without its unfinished last entry."""
    found = _BRACKETS.search(text)
    if found is None:
        return None
    entries = found[1].split(",")
    if not found[2] and not re.search(r"[\"'”’]\s*$", entries[-1]):
        entries.pop()
    return entries if any(entry.strip() for entry in entries) or found[2] else None


def _bullets(text: str) -> list[str] | None:
    found = [bullet[1] for line in text.splitlines() if (bullet := _BULLET.match(line))]
    return [part for item in found for part in _EXPLANATION.sub("", item.strip("*_ ")).split(",")] or None


def _plain(text: str) -> list[str] | None:
    if _NOTHING.match(text):
        return []
    quoted = [one or other for one, other in _QUOTED.findall(text)]
    if quoted:
        return [part for one in quoted for part in one.split(",")]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines = lines[1:]
    if len(lines) > 1 and all(len(line.split()) <= 3 and "," not in line for line in lines):
        return lines
    for line in lines:
        rest = _LEAD.sub("", line, count=1)
        entries = re.split(r"[,;]|\band\b", rest)
        lead = rest != line
        if (len(entries) > 1 or lead or len(lines) == 1) and all(len(entry.split()) <= 4 for entry in entries):
            return entries
    return None


def _first(text: str, marks: str, start: int) -> int:
    """The first place from `start` on that holds one of `marks`; -1 for none."""
    return min((position for mark in marks if (position := text.find(mark, start)) >= 0), default=-1)
