"""A tiny random CLIP on disk and tiny shards: a training step takes hundredths of a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.samples import write_shards
from ttd.training.config import Config, read_config


@pytest.fixture(scope="session")
def base(clip_folder: Path) -> Path:
    """A transformers folder with a random CLIP of two blocks, 64 px, patch 16."""
    return clip_folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 pairs in two shards."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, [12, 10])
    return folder


@pytest.fixture
def config(base: Path, shards: Path) -> Config:
    """Batches of 4, six steps per epoch, the last of 2 pairs."""
    return tiny_config(base, shards)


def tiny_config(base: Path, shards: Path, *overrides: str) -> Config:
    return read_config(
        None,
        [
            f"model.name={str(base)!r}",
            f"data.sources={str(shards)!r}",
            "augment.shortest=40",
            "augment.longest=80",
            "augment.crop=64",
            "optimiser.batch=4",
            "optimiser.rate=1e-2",
            "run.device=cpu",
            "run.precision=float32",
            "run.checkpoint_every=2",
            "run.log_every=1",
            "run.watch_every=0",
            'loss.similarity="raw"',  # what the references compute; tests of p ask for it
            *overrides,
        ],
    )
