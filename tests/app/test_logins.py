"""The delay after wrong passwords, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ttd.app import access
from ttd.app.access import LoginDelays, TooManyLogins


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)  # the others' turn, no time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def delays(clock: Clock) -> LoginDelays:
    return LoginDelays(clock, clock.sleep)


def tries(delays: LoginDelays, number: int, address: str = "203.0.113.7", user: str = "anna", *, right: bool) -> Any:
    async def all_of_them() -> list[bool]:
        return [await delays.check(address, user, lambda: right) for _ in range(number)]

    return asyncio.run(all_of_them())


def test_the_delay_grows_to_thirty_seconds_and_a_success_ends_it(delays: LoginDelays, clock: Clock) -> None:
    assert not any(tries(delays, 9, right=False))
    assert clock.waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert tries(delays, 1, right=True) == [True]
    assert clock.waits[-1] == 30
    waited = len(clock.waits)
    assert tries(delays, 3, right=True) == [True] * 3
    assert len(clock.waits) == waited
    tries(delays, 2, right=False)
    assert clock.waits[waited:] == [1]


def test_who_takes_longer_than_the_delay_waits_no_more(delays: LoginDelays, clock: Clock) -> None:
    tries(delays, 3, right=False)
    waited = list(clock.waits)
    clock.now += 3.5
    tries(delays, 1, right=False)
    assert clock.waits == [*waited, pytest.approx(0.5)]
    clock.now += 8
    tries(delays, 1, right=False)
    assert len(clock.waits) == len(waited) + 1


def test_another_address_or_name_does_not_wait(delays: LoginDelays, clock: Clock) -> None:
    tries(delays, 6, right=False)
    waited = len(clock.waits)
    tries(delays, 1, address="203.0.113.8", right=True)
    tries(delays, 1, user="eva", right=True)
    assert len(clock.waits) == waited


def test_all_addresses_of_one_network_of_ipv6_are_one(delays: LoginDelays, clock: Clock) -> None:
    for last in range(1, 6):
        tries(delays, 1, address=f"2001:db8:1:2::{last:x}", right=False)
    assert clock.waits == [1, 2, 4, 8]
    tries(delays, 1, address="2001:db8:1:3::1", right=False)
    assert len(clock.waits) == 4
    tries(delays, 1, address="::ffff:203.0.113.7", right=False)
    tries(delays, 1, address="203.0.113.7", right=False)
    assert clock.waits[4:] == [1]


def test_many_at_once_are_checked_one_after_the_other_and_only_so_many_wait(delays: LoginDelays, clock: Clock) -> None:
    async def storm() -> list[Any]:
        one = [delays.check("203.0.113.7", "anna", lambda: False) for _ in range(100)]
        return await asyncio.gather(*one, return_exceptions=True)

    found = asyncio.run(storm())
    answered = access.MAX_WAITING + 1  # the first one does not wait
    assert found.count(False) == answered
    assert sum(isinstance(one, TooManyLogins) for one in found) == 100 - answered
    assert tries(delays, 1, address="203.0.113.8", right=True) == [True]


def test_what_is_known_is_bounded_and_long_delays_are_forgotten_last(clock: Clock) -> None:
    delays = LoginDelays(clock, clock.sleep, known=50)
    tries(delays, 5, right=False)
    waited = len(clock.waits)
    for number in range(200):
        tries(delays, 1, user=f"name {number}", right=False)
    assert len(delays) <= 50
    assert len(clock.waits) == waited
    tries(delays, 1, right=False)
    assert clock.waits[-1] == pytest.approx(16)
    clock.now += access.FORGOTTEN_AFTER + 1
    tries(delays, 1, user="somebody", right=False)
    assert len(delays) == 1
