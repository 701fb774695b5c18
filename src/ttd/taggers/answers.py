"""Answers of language models: parsing the words in them, and the cache on disk.

Words are looked for in this order: a JSON value, a list in brackets that is not JSON, bullets or numbers, words in
quotation marks, one short line each, words with commas between them. On disk is one SQLite file, written in
transactions: a kill at any moment loses at most the answers of the last moment, and several processes may use one file
at once; of two answers to one question the first stays."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ttd.errors import InputError
from ttd.taggers import Caption, Chosen
from ttd.text.words import is_stop_word, split_words

_BUSY = 120.0  # seconds to wait for another process that writes
_AT_ONCE = 500  # keys of one query
_TABLE = """CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT, prompt TEXT, caption TEXT, answer TEXT, refused INTEGER,
    checksum INTEGER) WITHOUT ROWID"""


@dataclass(frozen=True)
class CachedAnswer:
    """What came back for a caption.

    Attributes:
        text: the model's own words, or the server's where it refused.
        refused: the server would not answer this caption.
    """

    text: str
    refused: bool = False


class AnswerCache:
    """Answers of one model to one prompt; the server's address is not part of the question.

    Args:
        path: the file; made where it is missing.
        model: as the server calls it.
        prompt: hash of the prompt.
        request: what else is sent, in plain values.

    Raises:
        InputError: the file is not such a cache, or cannot be used.
    """

    def __init__(self, path: Path, model: str, prompt: str, request: Mapping[str, Any]) -> None:
        self.path, self._model, self._prompt = path, model, prompt
        self._question = json.dumps([model, prompt, dict(request)], sort_keys=True)
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=_BUSY, isolation_level="IMMEDIATE")
            self._base.execute(_TABLE)

    def get(self, captions: Iterable[str]) -> dict[str, CachedAnswer]:
        """The answers that are known."""
        wanted = {self._key(caption): caption for caption in captions}
        found: dict[str, CachedAnswer] = {}
        with self._explained():
            for part in _parts(list(wanted)):
                marks = ",".join("?" * len(part))
                columns = "key, answer, refused, checksum"
                for key, text, refused, checksum in self._base.execute(
                    f"SELECT {columns} FROM answers WHERE key IN ({marks})", part
                ):
                    if not isinstance(text, str) or refused not in (0, 1) or checksum != _checksum(key, text, refused):
                        raise sqlite3.DatabaseError("an answer in it is damaged")
                    found[wanted[key]] = CachedAnswer(text, bool(refused))
        return found

    def put(self, answers: Mapping[str, CachedAnswer]) -> dict[str, CachedAnswer]:
        """Keep answers by caption, all or none; gives those that are kept: another process's where it was first."""
        rows = []
        for caption, answer in answers.items():
            key, text = self._key(caption), _storable(answer.text)
            checksum = _checksum(key, text, answer.refused)
            rows.append((key, self._model, self._prompt, _storable(caption), text, answer.refused, checksum))
        with self._explained(), self._base:  # one transaction
            self._base.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return self.get(answers)

    def has_answers(self) -> bool:
        """Whether the model has ever answered this prompt."""
        with self._explained():
            row = self._base.execute(
                "SELECT 1 FROM answers WHERE model = ? AND prompt = ? AND NOT refused LIMIT 1",
                (self._model, self._prompt),
            ).fetchone()
        return row is not None

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _key(self, caption: str) -> str:
        return hashlib.sha256(f"{self._question}\n{caption}".encode("utf-8", "surrogatepass")).hexdigest()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"the answers of language models cannot be kept in {self.path} ({error}): remove it if it is damaged, "
                "or choose another place with --llm-cache"
            ) from None


def _checksum(key: str, text: str, refused: bool) -> int:
    return zlib.crc32(f"{key}\n{int(refused)}\n{text}".encode("utf-8", "surrogatepass"))


def _storable(text: str) -> str:
    """SQLite takes valid Unicode only."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _parts(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]


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

    An entry of several words counts as its words without stop words; a word counts at every place where the
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
    """The text after the last thought, and before one that was incomplete."""
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
