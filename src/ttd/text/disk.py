"""Text embeddings kept on disk, so that a class list in many templates is paid for once on a machine.

One SQLite file for all models. An entry is named by the digest of what decides it: the encoder (`encoder_key`: every
parameter, its structure, number format, kind of device, torch's version), the templates, and the text or the whole
question. Each entry has a checksum. Nothing here ends a command: what cannot be read is encoded, what cannot be written
is left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.encoders.identity import encoder_key

log = logging.getLogger(__name__)

MOST_BYTES = 200_000_000  # of entries, about 95,000 texts at 512 channels
_WAIT = 5.0  # seconds for another process that writes
_CHECKSUM = 16  # bytes before the values
_DAY = 86_400

Texts = tuple[str, ...]


class TextCache:
    """Embeddings of one encoder, whose weights must not change meanwhile.

    Args:
        path: the file; made where it is missing. Many processes may share it.
        encoder: whose embeddings.
        most_bytes: above it, the quarter that was asked for longest ago goes.
    """

    def __init__(self, path: Path, encoder: Encoder, most_bytes: int = MOST_BYTES) -> None:
        self.path, self._encoder, self._most = path, encoder, most_bytes
        self._key: str | None = None
        self._broken = False

    def read(self, questions: Sequence[Texts], templates: Sequence[str]) -> dict[Texts, Tensor]:
        """Embeddings `[N,C]`, by question, of those that are kept: float32, on the encoder's device."""
        names = {self._name(question, templates): question for question in questions}
        found: dict[Texts, Tensor] = {}
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

    def write(self, embeddings: Mapping[Texts, Tensor], templates: Sequence[str]) -> None:
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

    def _name(self, question: Texts, templates: Sequence[str]) -> bytes:
        if self._key is None:
            self._key = encoder_key(self._encoder)
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
        """Goes on without the file; a damaged one is removed, and the next process begins it anew."""
        self._broken = True
        log.info("kept text embeddings are not used (%s: %s)", self.path, error)
        if not isinstance(error, (sqlite3.OperationalError, OSError)):  # those: busy, full, not allowed
            self.path.unlink(missing_ok=True)


def _checksum(name: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(name + content, digest_size=_CHECKSUM).digest()
