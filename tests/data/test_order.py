from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttd.data.sources import epoch_order

numbers = st.integers(0, 300)
seeds = st.integers(-(2**63), 2**64)
FIRST = [0, 9, 1, 6, 3, 5, 4, 2, 8, 7]
SECOND = [2, 8, 7]


@given(n=numbers, world=st.integers(1, 17), seed=seeds, epoch=st.integers(0, 5))
def test_all_ranks_together_meet_every_item_once(n: int, world: int, seed: int, epoch: int) -> None:
    parts = [epoch_order(n, seed, epoch, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(n=st.integers(1, 300), world=st.integers(1, 9), workers=st.integers(1, 9), seed=seeds)
def test_ranks_and_workers_walk_through_one_order(n: int, world: int, workers: int, seed: int) -> None:
    """Interleaving the ranks' items, and each rank's workers' items, gives the order of a single process."""
    whole = epoch_order(n, seed, 3).tolist()
    together = [-1] * n
    for rank in range(world):
        mine = epoch_order(n, seed, 3, rank, world)
        for worker in range(workers):
            for step, item in enumerate(mine[worker::workers].tolist()):
                together[(step * workers + worker) * world + rank] = item
    assert together == whole


def test_seeds_and_epochs_shuffle_differently() -> None:
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_the_order_is_the_same_on_every_machine() -> None:
    assert epoch_order(10, 0, 0).tolist() == FIRST
    assert epoch_order(10, 7, 2, 1, 3).tolist() == SECOND


def test_every_place_is_equally_likely() -> None:
    """Item 0 of 10 lands on each place in a tenth of 4,000 epochs (five standard deviations allowed)."""
    places = [epoch_order(10, 1, epoch).tolist().index(0) for epoch in range(4000)]
    assert np.abs(np.bincount(places, minlength=10) - 400).max() < 5 * np.sqrt(4000 * 0.09)


@pytest.mark.parametrize("wrong", [(-1, 0, 1), (5, 1, 1), (5, -1, 2), (5, 0, 0)])
def test_impossible_ranks_are_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="rank < world"):
        epoch_order(wrong[0], 0, 0, *wrong[1:])
