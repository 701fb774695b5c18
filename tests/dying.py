"""kill -9 at a chosen moment: a process that ends itself at the n-th thing that it does to the disk.

A kill can only leave behind what was on the disk, so these are all the moments that differ; each is hit for sure,
on a machine of any speed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die_at_disk_call(number: int) -> Callable[[], int]:
    """Count every write of a whole file, fsync and rename of this process from now on, and die at the `number`-th.

    A write is then half done, an fsync or a rename not begun; `number` 0: never. Gives what tells their count so far.
    """
    calls = 0

    def counted(do: Callable[..., Any], half: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                if half is not None:
                    half(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return do(*arguments, **options)

        return call

    write = Path.write_bytes
    Path.write_bytes = counted(write, lambda path, content: write(path, bytes(content)[: len(content) // 2]))  # type: ignore[method-assign]
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    return lambda: calls
