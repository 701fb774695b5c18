from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ttd.lru_cache import LRUCache

SIZES = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=40)


@settings(deadline=None)
@given(puts=SIZES, limit=st.integers(1, 20))
def test_never_above_its_limit_and_always_with_the_newest(puts: list[tuple[int, int]], limit: int) -> None:
    cache: LRUCache[int, list[int]] = LRUCache(limit, size=lambda value: value[0])
    order: list[tuple[int, int]] = []
    for key, size in puts:
        removed = cache.put(key, [size])
        order = [pair for pair in order if pair[0] != key] + [(key, size)]
        expected_removed = []
        while len(order) > 1 and sum(s for _, s in order) > limit:
            expected_removed.append([order.pop(0)[1]])
        assert removed == expected_removed
        assert cache.get(key) == [size]
    assert len(cache) == len(order)


def test_what_is_used_stays() -> None:
    cache: LRUCache[str, int] = LRUCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    assert cache.put("c", 3) == [2]
    assert cache.get("a") == 1
    cache.drop(lambda key: key == "a")
    assert cache.get("a") is None
