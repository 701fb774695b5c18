"""How many threads the tests compute with, in their own process and in those that they start."""

from __future__ import annotations

import os

import torch


def use_test_threads() -> None:
    """One thread, so that tests side by side do not fight over the cores, or as many as TTD_TEST_THREADS says."""
    torch.set_num_threads(int(os.environ.get("TTD_TEST_THREADS", "1")))
