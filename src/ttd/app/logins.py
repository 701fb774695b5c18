"""A delay after wrong passwords, so that trying many of them takes too long to be worth it."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

MAX_DELAY = 30.0  # seconds
FORGOTTEN_AFTER = 3600.0  # seconds
MAX_WAITING = 8  # logins of one address at the same time
MAX_KNOWN = 10_000  # pairs of address and name

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
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
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
            if len(self._known) >= MAX_KNOWN and (idle := [one for one in idle if one in self._known]):
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
