"""`ttd ...` or `python -m MODULE ...` in a process of its own that can be killed at a chosen moment."""

from __future__ import annotations

import os
import runpy
import sys
from multiprocessing.connection import Connection

from tests.dying import die_at_disk_call
from tests.threads import use_test_threads


def run_and_die(command: list[str], folder: str, death: int, calls: Connection) -> None:
    """Runs a command, "ttd" or a module and its arguments, in `folder`; at the `death`-th thing that it does to the
    disk it is killed, 0: never.

    Sends how many things it did to the disk, if it comes to its end.
    """
    use_test_threads()
    os.chdir(folder)
    sys.argv = command
    count = die_at_disk_call(death)
    module = "ttd" if command[0] == "ttd" else command[0]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        calls.send(count())
