"""Random draws that are the same on every machine and with every NumPy: integers from Philox's raw bit stream.

NumPy promises the raw stream of a bit generator, not the streams of `Generator`'s methods, and floating-point
functions differ in the last bit between machines; so every draw here is integer arithmetic on raw 64-bit words.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 64


class Draws:
    """A stream of draws that (seed, stream, index) alone decide."""

    def __init__(self, seed: int, stream: int, index: int) -> None:
        self._bits = np.random.Philox(key=[seed % 2**64, stream % 2**64], counter=[0, 0, 0, index % 2**64])
        self._words: list[int] = []

    def below(self, n: int) -> int:
        """An integer in 0..n-1 (n far below 2**32, so that the bias stays below 2**-32)."""
        if not self._words:
            self._words = self._bits.random_raw(_BLOCK).tolist()
        return ((self._words.pop() >> 32) * n) >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True in `percent` of a hundred draws."""
        return self.below(100) < percent

    def pick(self, items: tuple[T, ...] | list[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: tuple[T, ...] | list[T], count: int) -> list[T]:
        """`count` different items in random order."""
        pool = list(items)
        for i in range(count):
            j = self.between(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def raw_bytes(self, count: int) -> np.ndarray:
        """`count` random bytes, uint8 [count]."""
        words = self._bits.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count]
