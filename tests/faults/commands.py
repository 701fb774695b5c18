"""`ttd ...` in a process of its own that can be killed at a chosen moment."""

from __future__ import annotations

import os
import sys
from multiprocessing.connection import Connection

from tests.dying import die_at_disk_call
from tests.threads import use_test_threads


def run_and_die(arguments: list[str], folder: str, death: int, calls: Connection) -> None:
    """Runs in `folder`, and is killed at the `death`-th thing that it does to the disk; 0: never.

    Sends how many things it did to the disk, if it comes to its end.
    """
    use_test_threads()
    os.chdir(folder)
    sys.argv = ["ttd", *arguments]
    count = die_at_disk_call(death)
    from ttd.cli import main

    try:
        main()
    finally:
        calls.send(count())
