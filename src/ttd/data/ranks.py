"""Which of several processes this is."""

from __future__ import annotations

import os

from ttd.errors import InputError


def ranks() -> tuple[int, int]:
    """(rank, world) as torchrun sets them in RANK and WORLD_SIZE; (0, 1) without it.

    Raises:
        InputError: they are set to something else.
    """
    given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if all(text.isdecimal() for text in given) and int(given[0]) < int(given[1]):
        return int(given[0]), int(given[1])
    raise InputError(f"RANK={given[0]} and WORLD_SIZE={given[1]} are no rank: start with torchrun, or unset both")
