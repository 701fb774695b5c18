"""Who may use the page: this machine alone, or whoever knows the user and the password."""

from __future__ import annotations

import errno
import hmac
import ipaddress
import socket
from dataclasses import dataclass, field

from ttd.errors import InputError

SHORTEST = 8


@dataclass(frozen=True)
class Access:
    """Where the page is served and to whom.

    Attributes:
        host: a name or an address to bind to.
        port: 1 to 65535.
        user, password: None where nobody is asked.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.user is None) != (self.password is None):
            raise InputError("a user needs a password, and a password a user: give both or neither")
        if self.user is None and not self.local:
            raise InputError(
                f"{self.host} can be reached from other machines: name a user with --user, and give a password"
            )
        if self.user is not None and not self.user.strip():
            raise InputError("the user's name is empty: write one after --user")
        if self.password is not None and len(self.password) < SHORTEST:
            raise InputError(f"the password has fewer than {SHORTEST} characters: choose a longer one")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_local(self.host)

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that the page answers to; None: any, because it may be reached by names unknown here."""
        names = {"localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host}
        return frozenset(names) if self.local else None

    @property
    def address(self) -> str:
        """What to open in a browser."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.port}/"

    def check_free(self) -> None:
        """Raises `InputError` where the page could not be served here: the port is taken, or the address is none
        of this machine's."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((self.host, self.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(f"port {self.port} is taken: choose another with --port") from error
            raise InputError(
                f"{self.host} port {self.port} cannot be used here ({error.strerror or error}): "
                "choose another with --host and --port"
            ) from error

    def allows(self, user: str, password: str) -> bool:
        """Whether these are the ones, compared in a time that tells nothing."""
        right = (self.user or "", self.password or "")
        same = [
            hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))
            for given, wanted in zip((user, password), right, strict=True)
        ]
        return self.user is not None and all(same)


def is_local(host: str) -> bool:
    """Whether an address to bind to is one that only this machine can reach; other names than localhost count
    as not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
