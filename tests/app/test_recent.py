from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ttd.app.models import Recent

SIZES = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 9)), max_size=40)


@settings(deadline=None)
@given(puts=SIZES, limit=st.integers(1, 20))
def test_never_above_its_limit_and_always_with_the_newest(puts: list[tuple[int, int]], limit: int) -> None:
    recent: Recent[int, list[int]] = Recent(limit, size=lambda value: value[0])
    order: list[tuple[int, int]] = []
    for key, size in puts:
        gone = recent.put(key, [size])
        order = [pair for pair in order if pair[0] != key] + [(key, size)]
        expected_gone = []
        while len(order) > 1 and sum(s for _, s in order) > limit:
            expected_gone.append([order.pop(0)[1]])
        assert gone == expected_gone
        assert recent.get(key) == [size]
    assert len(recent) == len(order)


def test_what_is_used_stays() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    recent.get("a")
    assert recent.put("c", 3) == [2]
    assert recent.get("a") == 1
    recent.drop(lambda key: key == "a")
    assert recent.get("a") is None
