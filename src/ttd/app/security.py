"""Who can reach the page (`Access`), and an ASGI middleware in front of its server (`Guard`).

The guard lets through only the addresses that the page needs, files of one folder, and requests of limited size; its
headers tell the browser to load nothing from elsewhere. It depends on gradio's addresses but does not import gradio.
"""

from __future__ import annotations

import errno
import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttd.documents import parse_json
from ttd.errors import InputError
from ttd.schema import Misfit

MIN_PASSWORD = 8


@dataclass(frozen=True)
class Access:
    """Where the page is served and to whom.

    Attributes:
        host: a name or an address to bind to.
        port: 1 to 65535.
        user, password: None where the page needs no login.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.user is None) != (self.password is None):
            raise InputError("a user needs a password, and a password needs a user: give both or neither")
        if self.user is None and not self.local:
            raise InputError(
                f"{self.host} can be reached from other machines: name a user with --user, and give a password"
            )
        if self.user is not None and not self.user.strip():
            raise InputError("the user's name is empty: write one after --user")
        if self.password is not None and len(self.password) < MIN_PASSWORD:
            raise InputError(f"the password has fewer than {MIN_PASSWORD} characters: choose a longer one")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_local(self.host)

    @property
    def hosts(self) -> frozenset[str] | None:
        """The host names of requests that are accepted; None: any, as this machine may have names unknown here."""
        names = {"localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host}
        return frozenset(names) if self.local else None

    @property
    def address(self) -> str:
        """The URL to open in a browser."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/"

    def check_free(self) -> None:
        """Raises `InputError` where the page cannot be served here: the port is in use, or the address does not belong
        to this machine."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, self.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"port {self.port} is taken: choose another with --port") from error
            raise InputError(
                f"{self.host} port {self.port} cannot be used here ({error.strerror or error}): "
                "choose another with --host and --port"
            ) from error

    def allows(self, user: str, password: str) -> bool:
        """Whether user and password are right, compared in constant time."""
        wanted = (self.user or "", self.password or "")
        equal = [
            hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))
            for given, expected in zip((user, password), wanted, strict=True)
        ]
        return self.user is not None and all(equal)


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address to bind to; False for host names other than localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
JOIN = f"{API}/queue/join"
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
        f"{API}/login_check",
        f"{API}/queue/data",
        f"{API}/startup-events",
        f"{API}/theme.css",
        f"{API}/upload_progress",
        f"{API}/user",
    }
)
_READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{API}/heartbeat/", FILE)
_WRITE = frozenset({"/login", UPLOAD, JOIN, f"{API}/cancel", f"{API}/reset"})

BODY_BYTES = 4 << 20  # of every request except an upload
_MULTIPART_BYTES = 1 << 16  # what surrounds an uploaded file

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
        "frame-ancestors 'none'",
    )
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Answers forbidden requests with a sentence and passes the others on.

    Args:
        app: the server.
        folder: the only one whose files are served; links that lead out of it are not followed.
        hosts: the accepted host names (otherwise another web page could reach this one by DNS rebinding); None: any.
        upload_bytes: size of the largest upload.
    """

    def __init__(self, app: App, folder: Path, hosts: frozenset[str] | None, upload_bytes: int) -> None:
        self._app = app
        self._folder = folder.resolve()
        self._hosts = hosts
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal:
            return await _send_text(send, *refusal)
        limit = self._limit(scope["path"])
        too_large = 413, f"This is more than {limit >> 20} MB, the most that this page takes."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            return await _send_text(send, *too_large)
        if scope["path"] == JOIN:
            body = await _read_body(receive, limit)
            if body is None or not _names_only_local_files(body):
                return await _send_text(send, 403, "This request names a file that the page did not send.")
            receive = _replay(body, receive)
        else:
            receive = _limited(receive, limit)
        sender = _HeaderSender(send)
        try:
            await self._app(scope, receive, sender.send)
        except _TooLargeError:
            if not sender.started:
                await _send_text(send, *too_large)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, f"This page accepts only the host names {', '.join(sorted(self._hosts))}."
        if method in ("GET", "HEAD"):
            if path not in _READ and not path.startswith(_READ_BELOW):
                return 404, "There is nothing here."
            if path.startswith(FILE) and not self._may_serve(path[len(FILE) :]):
                return 403, "This file is not part of the page."
            return None
        if method != "POST" or path not in _WRITE:
            return 404, "There is nothing here."
        origin = headers.get("origin")
        if origin is not None and origin.split("://")[-1] != host:
            return 403, "This request comes from another page."
        return None

    def _may_serve(self, name: str) -> bool:
        try:
            return Path(name).resolve(strict=True).is_relative_to(self._folder)
        except (OSError, ValueError, RuntimeError):
            return False

    def _limit(self, path: str) -> int:
        return self._upload_bytes + _MULTIPART_BYTES if path == UPLOAD else BODY_BYTES


class _TooLargeError(Exception):
    """A body exceeds the limit, whatever its header says."""


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


async def _read_body(receive: Receive, limit: int) -> bytes | None:
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


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _limited(receive: Receive, limit: int) -> Receive:
    count = 0

    async def counting() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > limit:
            raise _TooLargeError
        return message

    return counting


class _HeaderSender:
    """Passes a response on with `_HEADERS`, which replace headers of the same name."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message) -> None:
        """ASGI."""
        if message["type"] == "http.response.start":
            self.started = True
            own = {name for name, _ in _HEADERS}
            others = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message = {**message, "headers": [*others, *_HEADERS]}
        await self._send(message)


async def _send_text(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode("utf-8")
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": [*head, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
