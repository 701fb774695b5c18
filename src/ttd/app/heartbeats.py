"""Which pages are open: gradio's page keeps one connection, its heartbeat, for as long as its tab stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Heartbeats:
    """The sessions with a heartbeat. Several threads may use it."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def beating(self, session: str) -> Iterator[None]:
        """A session's heartbeat, for as long as the block runs."""
        with self._lock:
            self._open[session] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[session] -= 1
                if not self._open[session]:
                    del self._open[session]

    def __contains__(self, session: str) -> bool:
        with self._lock:
            return session in self._open
