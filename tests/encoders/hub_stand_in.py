"""A hub and a release server on 127.0.0.1 that serves what a test puts into it, and can misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c0ffee" + "0" * 34


@dataclass
class StandIn:
    """Files by their path: "org/name/file" for the hub, "/releases/x" for plain downloads."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)  # what the server claims, where it is not the truth
    cut: dict[str, list[int]] = field(default_factory=dict)  # bytes after which the next GETs break off
    status: dict[str, int] = field(default_factory=dict)  # answers other than 200, by repository or path
    ranges: bool = True
    next_status: dict[str, list[int]] = field(default_factory=dict)  # of the next answers, the last first
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range

    def tag(self, name: str) -> str:
        return self.hashes.get(name) or hashlib.sha256(self.files[name]).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.stand_in
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        name, repository = self.path, ""
        if "/resolve/" in self.path:
            repository, _, rest = self.path.lstrip("/").partition("/resolve/")
            name = f"{repository}/{rest.partition('/')[2]}"
        status = hub.status.get(name) or hub.status.get(repository)
        if not status and hub.next_status.get(name):
            status = hub.next_status[name].pop()
        if status or name not in hub.files:
            known = any(file.startswith(f"{repository}/") for file in hub.files)
            self.send_response(status or 404)
            if not status or status < 500:
                self.send_header("X-Error-Code", "EntryNotFound" if known and not status else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(name, hub.files[name], body)

    def _send(self, name: str, content: bytes, body: bool) -> None:
        hub, tag = self.stand_in, f'"{self.stand_in.tag(name)}"'
        asked = self.headers.get("Range") if hub.ranges else None
        if asked and self.headers.get("If-Range", tag) == tag:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or len(content)), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            content = content[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            limits = hub.cut.get(name)
            limit = limits.pop() if limits else None
            self.wfile.write(content[:limit])
            if limit is not None:
                self.close_connection = True


@contextmanager
def serving() -> Iterator[StandIn]:
    """A running stand-in on a free port."""
    stand_in = StandIn()
    handler = type("Handler", (_Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
