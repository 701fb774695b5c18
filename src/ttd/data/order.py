"""The order of an epoch: a seeded permutation in which every rank takes every `world`-th item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)


def epoch_order(n: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """Which items rank `rank` of `world` meets in an epoch, in order; the position in it is one number.

    All ranks together meet every item exactly once; their counts differ by at most one. Depends on the
    arguments alone: not on the machine, on NumPy's version, or on the number of shards and workers.

    Args:
        n: number of items.
        seed, epoch: choose the permutation of 0..n-1.
        rank, world: 0 <= rank < world.

    Returns:
        int64 `[ceil((n - rank) / world)]`.
    """
    if n < 0 or not 0 <= rank < world:
        raise ValueError(f"n must be at least 0 and 0 <= rank < world, not n={n}, rank={rank}, world={world}")
    # Sorting by a hash instead of Generator.permutation, whose stream NumPy may change between versions.
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.array([epoch % 2**64], np.uint64))
    hashed = _mix(np.arange(n, dtype=np.uint64) ^ key)
    return np.argsort(hashed, kind="stable")[rank::world].astype(np.int64)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: a bijection of 64-bit words, so different items never share a hash."""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
