"""The page's address and access rules (`Access`); a delay after wrong passwords (`LoginDelays`)."""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
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
        public: whether everybody who reaches the host is let in without a password.
        embed: the sites that may show the page in a frame: "https://name".
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    root_path: str | None = None
    public: bool = False
    embed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.user is None) != (self.password is None):
            raise InputError("a user needs a password, and a password needs a user: give both or neither")
        if self.user is None and not self.local and not self.public:
            raise InputError(
                f"{self.host} can be reached from other machines: name a user with --user and give a password, or let "
                "everybody in with --public"
            )
        for site in self.embed:
            if not re.fullmatch(r"https?://[a-zA-Z0-9.*-]+(:[0-9]+)?", site):
                raise InputError(f"{site!r} is not a site: write https://name after --embed")
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


MAX_DELAY = 30.0  # seconds
FORGOTTEN_AFTER = 3600.0  # seconds
MAX_WAITING = 8  # logins of one address at the same time

CLIENT: ContextVar[str] = ContextVar("CLIENT", default="")
"""The address that the request which is being answered came from; `Guard` sets it."""


class TooManyLogins(Exception):
    """More logins of one address are waiting than a person would start."""


@dataclass
class _Failures:
    count: int = 0
    last: float = float("-inf")
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LoginDelays:
    """Lets the n-th login after failures pass 1, 2, 4, ... and at most 30 seconds after the last failure.

    Counted by address (of IPv6 its network of 64 bits, which one visitor owns) and name; a success forgets the
    failures.
    Logins of one address and name are checked one after the other, so sending many at once does not help.

    Args:
        clock: seconds.
        sleep: waits for so many of them.
        known: pairs of address and name that are remembered.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        known: int = 10_000,
    ) -> None:
        self._clock, self._sleep, self._most = clock, sleep, known
        self._known: dict[tuple[str, str], _Failures] = {}
        self._waiting: Counter[str] = Counter()

    async def check(self, address: str, user: str, right: Callable[[], bool]) -> bool:
        """Waits as long as a login of this address and name has to, then asks `right` whether it is.

        Raises:
            TooManyLogins: too many others of this address are waiting.
        """
        network = _network(address)
        if self._waiting[network] >= MAX_WAITING:
            raise TooManyLogins
        failures = self._failures((network, user[:200]))
        self._waiting[network] += 1
        failures.waiting += 1
        try:
            async with failures.lock:
                wait = failures.last + _delay(failures.count) - self._clock()
                if wait > 0:
                    await self._sleep(wait)
                if right():
                    failures.count = 0
                    return True
                failures.count, failures.last = failures.count + 1, self._clock()
                return False
        finally:
            failures.waiting -= 1
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network]

    def __len__(self) -> int:
        return len(self._known)

    def _failures(self, key: tuple[str, str]) -> _Failures:
        if key not in self._known:
            now = self._clock()
            idle = [one for one, failures in self._known.items() if not failures.waiting]
            for one in idle:
                if not self._known[one].count or now - self._known[one].last > FORGOTTEN_AFTER:
                    del self._known[one]
            if len(self._known) >= self._most and (idle := [one for one in idle if one in self._known]):
                # Those with the fewest failures first: many other names do not make a long delay forgotten.
                del self._known[min(idle, key=lambda one: (self._known[one].count, self._known[one].last))]
            self._known[key] = _Failures()
        return self._known[key]


def _delay(failures: int) -> float:
    return min(MAX_DELAY, 2.0 ** min(failures - 1, 10)) if failures else 0.0


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
