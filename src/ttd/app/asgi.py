"""The types of ASGI, parts to read and put together requests, and which of them are under way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from threading import Condition, Lock
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_MOMENT = 0.5  # seconds


def replayed(chunks: Iterable[bytes], receive: Receive) -> Receive:
    """A request's body that was read before, in pieces; what follows it comes from `receive`."""
    left = iter(chunks)
    done = False

    async def next_message() -> Message:
        nonlocal done
        if done:
            return await receive()
        chunk = next(left, b"")
        done = not chunk
        return {"type": "http.request", "body": chunk, "more_body": not done}

    return next_message


async def bare_get(app: App, scope: Scope, path: str) -> int:
    """The status of a GET of another path with the headers of a request, and without a body."""
    status = 0

    async def nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def note(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = int(message["status"])

    asked = {**scope, "method": "GET", "path": path, "raw_path": path.encode("ascii"), "query_string": b""}
    await app(asked, nothing, note)
    return status


class BodyTooLarge(Exception):
    """A body exceeds the limit, whatever its header says."""


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The body of a request; None where it is larger than `limit` or incomplete."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return bytes(body)


def limited(receive: Receive, limit: int) -> Receive:
    """A request's body that ends with `BodyTooLarge` after `limit` bytes."""
    count = 0

    async def counting() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise BodyTooLarge
        return message

    return counting


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


class Running:
    """The requests that a visitor waits for, and whether new ones are still taken. Several threads may use it."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = Condition()
        self.stopping = False

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """A request, for as long as the block runs."""
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """From now on nothing new is taken; returns when nothing is waited for, after `seconds` at the latest."""
        self.stopping = True
        end = time.monotonic() + seconds
        with self._changed:
            # A question that was just taken opens the stream of its answers within a moment.
            while self._changed.wait_for(lambda: self._count == 0, max(0.0, end - time.monotonic())):
                if not self._changed.wait(min(_MOMENT, max(0.0, end - time.monotonic()))):
                    return
