"""The types of ASGI, and small parts to put requests together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


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
