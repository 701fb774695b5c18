"""A cache of limited size for several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """A cache of limited size: the least recently used values are removed. Several threads may use it.

    Args:
        limit: of the sum of all sizes; the newest value stays even where it alone exceeds the limit.
        size: of a value, computed once when it is put in; by default every value counts as one.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size = size
        self._total = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used; None where it is not cached."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: K, value: V) -> list[V]:
        """Adds `value`; returns the values that were removed for it, least recently used first."""
        size = self._size(value)
        with self._lock:
            if key in self._values:
                self._remove(key)
            self._values[key] = (value, size)
            self._total += size
            removed = []
            while len(self._values) > 1 and self._total > self._limit:
                removed.append(self._remove(next(iter(self._values))))
            return removed

    def drop(self, wanted: Callable[[K], bool]) -> None:
        """Removes every value for whose key `wanted` is true."""
        with self._lock:
            for key in [key for key in self._values if wanted(key)]:
                self._remove(key)

    def _remove(self, key: K) -> V:
        value, size = self._values.pop(key)
        self._total -= size
        return value

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)
