"""How work grows with its input: in this thread's own processor time, which other processes do not lengthen.

Two sizes are compared with each other, so no machine is too slow or too busy for it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

TIMES = 8
LINEAR = 3 * TIMES  # work that grows with its input stays below it, work that grows with its square (64) does not


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times the work of `size` the work of `TIMES * size` is."""
    return least_spent(lambda: work(TIMES * size), 3) / least_spent(lambda: work(size), 6)


def least_spent(work: Callable[[], object], tries: int) -> float:
    """Seconds of this thread's processor time, the least of several tries."""

    def spent() -> float:
        start = thread_time()
        work()
        return thread_time() - start

    return min(spent() for _ in range(tries))
