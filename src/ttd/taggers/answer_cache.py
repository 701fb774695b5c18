"""Answers of language models on disk: asked once, kept for every later run.

One SQLite file, written in transactions: a kill at any moment loses at most the answers of the last moment, and
several processes may use one file at once; of two answers to one question the first stays.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ttd.errors import InputError

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
    """Answers of one model to one prompt; the server's address is no part of the question.

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
