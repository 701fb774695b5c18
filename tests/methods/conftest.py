"""Where the reference of the methods lies."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def peers_root(shared: Path) -> Path:
    root = shared / "reference" / "peers"
    if not root.is_dir():
        pytest.skip("the reference of other methods is not there (shared/reference/peers)")
    return root
