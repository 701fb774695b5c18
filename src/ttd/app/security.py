"""An ASGI middleware in front of the page's server.

The guard lets through only the addresses that the page needs, files of one folder, and requests of limited size, of
visitors who are logged in where a login is needed; its headers tell the browser to load nothing from elsewhere. It
depends on gradio's addresses but does not import gradio.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttd.app.access import CLIENT
from ttd.app.asgi import (
    App,
    BodyTooLarge,
    Heartbeats,
    Message,
    Receive,
    Running,
    Scope,
    Send,
    bare_get,
    limited,
    read_body,
    replayed,
)
from ttd.app.uploads import UploadFolder, UploadRefused
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit

API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
JOIN = f"{API}/queue/join"
DATA = f"{API}/queue/data"
HEARTBEAT = f"{API}/heartbeat/"
LOGIN_CHECK = f"{API}/login_check"
_READ = frozenset(
    {
        "/",
        "/config",
        "/favicon.ico",
        "/login_check",
        "/logout",
        "/robots.txt",
        "/theme.css",
        "/user",
        f"{API}/app_id",
        LOGIN_CHECK,
        DATA,
        f"{API}/startup-events",
        f"{API}/theme.css",
        f"{API}/upload_progress",
        f"{API}/user",
    }
)
_READ_BELOW = ("/assets/", "/static/", "/svelte/", HEARTBEAT, FILE)
_WRITE = frozenset({"/login", UPLOAD, JOIN, f"{API}/cancel", f"{API}/reset"})

BODY_BYTES = 4 << 20  # of every request except uploads and logins
LOGIN_BYTES = 1 << 16
MAX_STREAMS = 256  # open pages and questions that are being answered
_MULTIPART_BYTES = 1 << 16  # what surrounds an uploaded file

HEALTH = "/healthz"
_NOBODY = "'none'"
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # gradio's page does not start without them
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)


def _headers(embed: tuple[str, ...] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """Of every answer; `embed` are the sites that may show the page in a frame."""
    policy = f"{_POLICY}; frame-ancestors {' '.join(embed) if embed else _NOBODY}"
    return (
        (b"content-security-policy", policy.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


class Guard:
    """Answers forbidden requests with a sentence and passes the others on.

    Args:
        app: the server.
        uploads: the folder of which files are served (links that lead out of it are not followed), and which takes
            uploads.
        hosts: the accepted host names (otherwise another web page could reach this one by DNS rebinding); None: any.
        upload_bytes: size of the largest upload.
        heartbeats: where the pages that are open are noted.
        proxied: whether a proxy is in front: only then headers that name the visitor's address or the page's count.
        origin: name and port of the page behind the proxy, where known.
        embed: the sites that may show the page in a frame.
        running: where the requests are noted that a visitor waits for.
    """

    def __init__(
        self,
        app: App,
        uploads: UploadFolder,
        hosts: frozenset[str] | None,
        upload_bytes: int,
        heartbeats: Heartbeats | None = None,
        proxied: bool = False,
        origin: str | None = None,
        embed: tuple[str, ...] = (),
        running: Running | None = None,
    ) -> None:
        self._app = app
        self._uploads = uploads
        self._folder = uploads.folder.resolve()
        self._hosts = hosts
        self._upload_bytes = upload_bytes
        self._heartbeats = Heartbeats() if heartbeats is None else heartbeats
        self._proxied = proxied
        self._origin = origin
        self._headers = _headers(embed)
        self._running = Running() if running is None else running
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD"):
            # For a load balancer, which may ask by any name and has no password: it learns that the page runs.
            return await _send_text(send, *((503, "stopping") if self._running.stopping else (200, "ok")))
        if not self._proxied:
            scope = {**scope, "headers": [pair for pair in scope["headers"] if not _names_a_proxy(pair[0])]}
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal:
            return await _send_text(send, *refusal)
        if self._running.stopping and scope["path"] in (JOIN, UPLOAD):
            return await _send_text(send, 503, "This page is being stopped: ask again in a minute.")
        limit = self._limit(scope["path"])
        too_large = 413, f"This is more than {limit >> 20} MB, the most that this page takes."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            return await _send_text(send, *too_large)
        # Gradio checks this for some of its addresses only, and for none before it reads the body.
        if _needs_login(scope["path"]) and await bare_get(self._app, scope, LOGIN_CHECK) != 200:
            return await _send_text(send, 401, "Log in first.")
        client = scope.get("client")
        CLIENT.set(client[0] if client else "")
        sender = _HeaderSender(send, self._headers)
        try:
            await self._pass_on(scope, receive, sender.send, limit)
        except BodyTooLarge:
            if not sender.started:
                await _send_text(send, *too_large)
        except UploadRefused as refused:
            await _send_text(send, refused.status, refused.sentence)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        path = scope["path"]
        if path == UPLOAD:
            with self._running.waited_for():
                return await self._uploads.take(self._app, scope, receive, send, limit)
        if path == DATA or path.startswith(HEARTBEAT):
            return await self._stream(scope, receive, send)
        if path != JOIN:
            return await self._app(scope, limited(receive, limit), send)
        body = await read_body(receive, limit)
        if body is None or not _names_only_local_files(body):
            return await _send_text(send, 403, "This request names a file that the page did not send.")
        return await self._app(scope, replayed([body], receive), send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer that goes on for as long as a page is open, or for as long as its question is computed."""
        if self._streams >= MAX_STREAMS:
            return await _send_text(send, 503, "Too many visitors are on this page: try again in a minute.")
        self._streams += 1
        try:
            if scope["path"] == DATA:
                with self._running.waited_for():
                    return await self._app(scope, receive, send)
            with self._heartbeats.beating(scope["path"][len(HEARTBEAT) :]):
                return await self._app(scope, receive, send)
        finally:
            self._streams -= 1

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            names = ", ".join(sorted(self._hosts))
            return 403, f"This page accepts only the host names {names}; a proxy's is named with ttd app --root-path."
        if method in ("GET", "HEAD"):
            if path not in _READ and not path.startswith(_READ_BELOW):
                return 404, "There is nothing here."
            if path.startswith(FILE) and not self._may_serve(path[len(FILE) :]):
                return 403, "This file is not part of the page."
            return None
        if method != "POST" or path not in _WRITE:
            return 404, "There is nothing here."
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] not in (host, self._origin):
            return 403, "This request comes from another page."
        return None

    def _may_serve(self, name: str) -> bool:
        try:
            return Path(name).resolve(strict=True).is_relative_to(self._folder)
        except (OSError, ValueError, RuntimeError):
            return False

    def _limit(self, path: str) -> int:
        if path == UPLOAD:
            return self._upload_bytes + _MULTIPART_BYTES
        return LOGIN_BYTES if path == "/login" else BODY_BYTES


def _names_a_proxy(header: bytes) -> bool:
    """Headers that only a proxy may set; gradio and uvicorn believe them."""
    name = header.lower()
    return name.startswith((b"x-forwarded-", b"x-gradio-server")) or name == b"forwarded"


def _needs_login(path: str) -> bool:
    return path in _WRITE - {"/login"} or path in (DATA, UPLOAD) or path.startswith((HEARTBEAT, FILE))


def _name(host: str) -> str:
    """A Host header without its port."""
    return host if host.endswith("]") else host.rsplit(":", 1)[0]


def _names_only_local_files(body: bytes) -> bool:
    """Whether the body of a request to gradio's queue is JSON whose files are all local paths.

    Gradio compares local paths with its upload folder, but it would fetch a web address.
    """
    try:
        return not any("://" in path or path.startswith("//") for path in _paths(parse_json(body, nan=True)))
    except Misfit:
        return False


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and ("meta" in value or "url" in value or "orig_name" in value):
            yield path
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner)


class _HeaderSender:
    """Passes a response on with headers that replace those of the same name."""

    def __init__(self, send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._send, self._headers = send, headers
        self.started = False

    async def send(self, message: Message) -> None:
        """ASGI."""
        if message["type"] == "http.response.start":
            self.started = True
            own = {name for name, _ in self._headers}
            others = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message = {**message, "headers": [*others, *self._headers]}
        await self._send(message)


async def _send_text(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode("utf-8")
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": [*head, *_headers()]})
    await send({"type": "http.response.body", "body": body})
