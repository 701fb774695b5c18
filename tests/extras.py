"""Tests of the optional extras skip where the extra is not installed, and say which one it is."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


def needs(extra: str, module: str) -> Any:
    """The module of an extra; where it is missing, the test (or the whole file) is skipped, in one line for all."""
    found: ModuleType = pytest.importorskip(module, reason=f"the extra {extra} is not installed")
    return found
