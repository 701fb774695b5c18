"""The text side of a model: strings checked, embedded once, remembered; what is truncated or unknown is named."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.encoders.identity import encoder_key
from ttd.errors import InputError
from ttd.lru_cache import LRUCache
from ttd.text.words import split_words

log = logging.getLogger(__name__)

MOST_BYTES = 200_000_000  # of entries, about 95,000 texts at 512 channels
_WAIT = 5.0  # seconds for another process that writes
_CHECKSUM = 16  # bytes before the values
_DAY = 86_400

_Strings = tuple[str, ...]


class TextCache:
    """Embeddings of one encoder on disk, so that a class list in many templates is paid for once on a machine.

    One SQLite file for all models. An entry is named by the digest of what decides it: the encoder (`encoder_key`:
    every parameter, its structure, number format, kind of device, torch's version), the templates, and the text or the
    whole question. Each entry has a checksum. Nothing here ends a command: what cannot be read is encoded, what cannot
    be written is left. The encoder's weights must not change while it is used.

    Args:
        path: the file; made where it is missing. Many processes may share it.
        encoder: whose embeddings.
        most_bytes: above it, the quarter that was asked for longest ago goes.
    """

    def __init__(self, path: Path, encoder: Encoder, most_bytes: int = MOST_BYTES) -> None:
        self.path, self._encoder, self._most = path, encoder, most_bytes
        self._key: str | None = None
        self._broken = False

    def read(self, questions: Sequence[_Strings], templates: Sequence[str]) -> dict[_Strings, Tensor]:
        """Embeddings `[N,C]`, by question, of those that are kept: float32, on the encoder's device."""
        names = {self._name(question, templates): question for question in questions}
        found: dict[_Strings, Tensor] = {}
        today = int(time.time()) // _DAY
        with self._open() as file:
            if file is None:
                return {}
            old = []
            for name, question in names.items():
                row = file.execute("SELECT value, day FROM texts WHERE name = ?", (name,)).fetchone()
                values = None if row is None else self._values(name, row[0], len(question))
                if values is not None:
                    found[question] = values
                    old += [name] if row[1] != today else []
            if old:
                file.executemany("UPDATE texts SET day = ? WHERE name = ?", [(today, name) for name in old])
        return found

    def write(self, embeddings: Mapping[_Strings, Tensor], templates: Sequence[str]) -> None:
        """Keep embeddings `[N,C]` of questions of N texts."""
        today = int(time.time()) // _DAY
        rows = []
        for question, values in embeddings.items():
            name = self._name(question, templates)
            content = values.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes()
            rows.append((name, _checksum(name, content) + content, today))
        with self._open() as file:
            if file is None:
                return
            file.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
            pages, free, size = (
                file.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
            )
            if (pages - free) * size > self._most:
                oldest = "SELECT name FROM texts ORDER BY day, rowid LIMIT (SELECT count(*) / 4 + 1 FROM texts)"
                file.execute(f"DELETE FROM texts WHERE name IN ({oldest})")

    def _values(self, name: bytes, content: object, number: int) -> Tensor | None:
        """What an entry holds, None where it is damaged."""
        if not isinstance(content, bytes) or content[:_CHECKSUM] != _checksum(name, content[_CHECKSUM:]):
            return None
        values = np.frombuffer(content, "<f4", offset=_CHECKSUM)
        if len(values) != number * self._encoder.embedding_size:
            return None
        return torch.from_numpy(values.astype(np.float32)).view(number, -1).to(self._encoder.device)

    def _name(self, question: _Strings, templates: Sequence[str]) -> bytes:
        if self._key is None:
            self._key = encoder_key(self._encoder, method=False)
        content = json.dumps([self._key, list(templates), list(question)])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """A transaction; None where the file cannot be used."""
        if self._broken:
            yield None
            return
        file: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(self.path, timeout=_WAIT)
            file.execute(
                "CREATE TABLE IF NOT EXISTS texts (name BLOB PRIMARY KEY, value BLOB NOT NULL, day INT NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        if file is None or self._broken:
            yield None
            return
        try:
            with file:
                yield file
        except sqlite3.Error as error:
            self._give_up(error)
        finally:
            file.close()

    def _give_up(self, error: Exception) -> None:
        """Continues without the file; a damaged one is removed, and the next process begins it again."""
        self._broken = True
        log.info("saved text embeddings are not used (%s: %s)", self.path, error)
        if not isinstance(error, (sqlite3.OperationalError, OSError)):  # those: busy, full, not allowed
            self.path.unlink(missing_ok=True)


def _checksum(name: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(name + content, digest_size=_CHECKSUM).digest()


KEPT = 10_000  # embeddings for the next question: 20 MB at 512 channels


class Texts:
    """Text embeddings of one encoder, whose weights must not change while it is used.

    Texts that share a batch change each other's last digits (1e-7), so a text's embedding depends on what else was
    asked for when it was first met; see `RepeatableTexts`.

    Args:
        encoder: of the texts.
        cache: where embeddings are kept on disk, None for nowhere.
        kept: embeddings in memory.
    """

    def __init__(self, encoder: Encoder, cache: TextCache | None = None, kept: int = KEPT) -> None:
        self._encoder, self.cache = encoder, cache
        self._known: LRUCache[tuple[str, tuple[str, ...]], Tensor] = LRUCache(kept)

    def encode(self, texts: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """Embeddings `[N,C]`, L2-normalised; each distinct text is encoded once, the last ones are kept.

        Raises:
            InputError: an empty text, or one that is not valid Unicode.
        """
        check_texts(texts)
        found = {text: self._known.get((text, templates)) for text in texts}
        rows = {text: row for text, row in found.items() if row is not None}
        if missing := [text for text, row in found.items() if row is None]:
            encoded = self._encode([(text,) for text in missing], templates)
            rows.update((text, row[0].clone()) for text, row in zip(missing, encoded, strict=True))
        for text in missing:
            self._known.put((text, templates), rows[text])
        return torch.stack([rows[text] for text in texts])

    def _encode(self, questions: Sequence[tuple[str, ...]], templates: tuple[str, ...]) -> list[Tensor]:
        """Embeddings `[N,C]` of questions of N texts, those that are not kept on disk all in one batch.

        Texts in a single template are not looked up on disk: encoding them is faster.
        """
        cache = self.cache if len(templates) > 1 else None
        found = {} if cache is None else cache.read(questions, templates)
        missing = [question for question in questions if question not in found]
        if missing:
            rows = self._encoder.encode_text([text for question in missing for text in question], templates)
            made = dict(zip(missing, torch.split(rows, [len(question) for question in missing]), strict=True))
            if cache is not None:
                cache.write(made, templates)
            found |= made
        return [found[question] for question in questions]

    def forget(self) -> None:
        """Encode every text again: what comes then depends, to the last digit, on nothing that was asked before."""
        self._known.drop(lambda _: True)

    def check(self, texts: Sequence[str], templates: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unusable texts; those that will be truncated are logged and returned."""
        check_texts(texts)
        truncated = self.truncated(texts, templates)
        for text in truncated:
            log.warning(
                "%r is longer than the %d tokens that the model takes: only its beginning counts",
                shortened(text),
                self._encoder.max_tokens,
            )
        return truncated

    def truncated(self, texts: Sequence[str], templates: tuple[str, ...]) -> tuple[str, ...]:
        """Those texts of which, with their longest template, only the beginning fits into the text tower."""
        longest = max(templates, key=len)
        filled = {text: longest.replace("{}", text) for text in texts}
        flags = self._encoder.truncated_texts(list(filled.values()))
        return tuple(text for text, flag in zip(filled, flags, strict=True) if flag)

    def unknown(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Distinct words (lower case) outside the encoder's closed vocabulary; none where it is open."""
        vocabulary = self._encoder.vocabulary
        if vocabulary is None:
            return ()
        words = (word.text.lower() for text in texts for word in split_words(text, stop_words=True))
        return tuple(dict.fromkeys(word for word in words if word not in vocabulary))


class RepeatableTexts(Texts):
    """Text embeddings that depend on the question alone, whatever was asked before.

    The distinct texts of a question are one batch, always the same, and are remembered together: a word that is in
    several questions is encoded in each.
    """

    def __init__(self, encoder: Encoder, cache: TextCache | None = None, kept: int = KEPT) -> None:
        super().__init__(encoder, cache, kept)
        self._questions: LRUCache[tuple[tuple[str, ...], tuple[str, ...]], Tensor] = LRUCache(kept, len)

    def encode(self, texts: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """As `Texts.encode`; the last questions are kept."""
        check_texts(texts)
        distinct = tuple(dict.fromkeys(texts))
        found = self._questions.get((distinct, templates))
        if found is None:
            (found,) = self._encode([distinct], templates)
            self._questions.put((distinct, templates), found)
        row = {text: number for number, text in enumerate(distinct)}
        return found[[row[text] for text in texts]]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is not a list of at least one non-empty, valid string.

    Raises:
        InputError: says which.
    """
    if isinstance(texts, str):
        raise InputError(f"texts must be a list of strings: write [{shortened(texts)!r}]")
    if not texts:
        raise InputError("there is no text to look for: give at least one")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise InputError("a text is empty: write what to look for")
        if any(0xD800 <= ord(char) <= 0xDFFF for char in text):
            raise InputError(f"the text {shortened(text)!r} is not valid Unicode: write it again as UTF-8")


def shortened(text: str, limit: int = 60) -> str:
    """A text for a message, its end left out where it is long."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
