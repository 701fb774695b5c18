"""A memory of what was used last, bounded in bytes; safe for several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps values until their sizes add up to more than `limit`; then the one unused for longest goes.

    Args:
        limit: in whatever unit `size` answers; the newest value stays even where it alone exceeds it.
        size: of a value, asked once when it is put in.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size = size
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The value, which now counts as used last; None where it is not held."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: K, value: V) -> list[V]:
        """Holds `value`; the values that had to go for it, longest unused first."""
        size = self._size(value)
        with self._lock:
            self._held.pop(key, None)
            self._held[key] = (value, size)
            gone = []
            while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self._limit:
                gone.append(self._held.popitem(last=False)[1][0])
            return gone

    def drop(self, wanted: Callable[[K], bool]) -> None:
        """Forgets every value whose key is `wanted`."""
        with self._lock:
            for key in [key for key in self._held if wanted(key)]:
                del self._held[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)
