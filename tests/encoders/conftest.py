"""Small models on disk, and a cache folder and hub of each test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.encoders.hub_stand_in import StandIn, serving
from tests.tiny_models import tiny_tcl_tensors


@pytest.fixture
def ttd_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for everything that is downloaded."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TTD_CACHE", str(folder))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, ttd_cache: Path) -> Iterator[StandIn]:
    """A hub of the test's own, which HF_ENDPOINT points to."""
    with serving() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


@pytest.fixture(scope="session")
def tcl_tensors() -> dict[str, Tensor]:
    """The parameters of a small random TCL in its own names. Not to be changed."""
    return tiny_tcl_tensors()
