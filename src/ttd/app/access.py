"""Where the page is served and to whom (`Access`)."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ttd.errors import InputError

MIN_PASSWORD = 8


@dataclass(frozen=True)
class Access:
    """Where the page is served and to whom.

    Attributes:
        host: a name or an address to bind to.
        port: 1 to 65535.
        user, password: None where the page needs no login.
        root_path: where a proxy serves the page, "/path" or "https://name/path"; None: there is no proxy.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    root_path: str | None = None

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
        if self.root_path is not None and not self.root_path.startswith(("/", "http://", "https://")):
            raise InputError(f"{self.root_path} is not a place of a page: write /path or https://name/path")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_local(self.host)

    @property
    def hosts(self) -> frozenset[str] | None:
        """The host names of requests that are accepted; None: any, as this machine may have names unknown here."""
        names = {"localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host}
        public = urlsplit(self.root_path or "").hostname
        return frozenset(names | ({public} if public else set())) if self.local else None

    @property
    def origin(self) -> str | None:
        """Name and port of the page behind a proxy, as a browser's Origin header says them; None where unknown."""
        return urlsplit(self.root_path or "").netloc or None

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
