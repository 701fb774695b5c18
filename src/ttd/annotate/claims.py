"""Which tab shows which item, so that two tabs on one queue are given different ones.

A claim is a lock of the operating system on a file, so it ends with the process, however that ends. It is a
courtesy, not a guard: the versions of `Store` keep two tabs on one item from harming each other.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ttd.safe_paths import inside

IDLE_SECONDS = 600.0


@dataclass
class _Claim:
    tab: str
    lock: FileLock
    touched: float


class Claims:
    """The claims of this process.

    Args:
        folder: shared by all processes on one set.
        idle: seconds after which a tab that did nothing loses its item to another tab of the same process.
    """

    def __init__(self, folder: Path, idle: float = IDLE_SECONDS) -> None:
        self._folder, self._idle = folder, idle
        self._held: dict[str, _Claim] = {}
        self._guard = threading.Lock()

    def take(self, identifier: str, tab: str) -> bool:
        """Claims an item for a tab; False where another one has it."""
        with self._guard:
            held = self._held.get(identifier)
            if held is not None:
                if held.tab != tab and time.monotonic() - held.touched < self._idle:
                    return False
                held.tab, held.touched = tab, time.monotonic()
                return True
            # A claim is taken and given back by different threads.
            lock = FileLock(inside(self._folder, f"{identifier}.lock"), thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            self._held[identifier] = _Claim(tab, lock, time.monotonic())
            return True

    def touch(self, identifier: str, tab: str) -> None:
        """Says that the tab still works on the item."""
        with self._guard:
            held = self._held.get(identifier)
            if held is not None and held.tab == tab:
                held.touched = time.monotonic()

    def give_back(self, tab: str, but: str | None = None) -> None:
        """Ends all claims of a tab, or all but one."""
        with self._guard:
            for identifier in [name for name, held in self._held.items() if held.tab == tab and name != but]:
                self._held.pop(identifier).lock.release()
