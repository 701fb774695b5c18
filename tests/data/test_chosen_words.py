from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import json_bytes, picture, write_tar
from ttd.data.chosen_words import ModelChooser, TagJob
from ttd.data.damage import DamagedPair
from ttd.data.pairs import PairSource
from ttd.data.shard_jobs import run_shards
from ttd.model import TTD

SAMPLES = {
    "one": {"png": picture(0), "txt": b"red and blue"},
    "five": {"png": picture(1), "json": json_bytes({"captions": ["a green red", "blue or green", "of the"]})},
    "broken": {"png": b"no", "txt": b"red"},
    "stop": {"png": picture(2), "txt": b"on the"},
    "large": {"png": picture(2, side=40), "txt": b"blue red"},
}


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    return PairSource(write_tar(tmp_path / "cc/x.tar", SAMPLES))


@pytest.mark.parametrize("batch", [1, 16])
def test_the_words_that_the_model_selects(source: PairSource, batch: int) -> None:
    damaged: list[DamagedPair] = []
    job = TagJob(ModelChooser(TTD(ColourModelEncoder()), stop_words=True), batch=batch)
    table = job.table(source, range(len(source)), damaged.append)
    assert dict(zip(table["key"].to_pylist(), table["tags"].to_pylist(), strict=True)) == {
        "one": [["red"]],
        "five": [["green"], ["green"], []],
        "stop": [[]],
        "large": [["blue"]],
    }
    assert [d.key for d in damaged] == ["broken"]


def test_they_equal_those_of_tag_for_each_pair(source: PairSource) -> None:
    model = TTD(ColourModelEncoder())
    table = TagJob(ModelChooser(model)).table(source, range(len(source)), lambda damage: None)
    for key, tags in zip(table["key"].to_pylist(), table["tags"].to_pylist(), strict=True):
        pair = source[list(SAMPLES).index(key)]
        assert tags == [model.tag(pair.image, c, stop_words=False).selected for c in pair.captions]


def test_training_reads_them_beside_the_pairs(source: PairSource, tmp_path: Path) -> None:
    job = TagJob(ModelChooser(TTD(ColourModelEncoder()), stop_words=True))
    run_shards(job, source, tmp_path / "tags", limit=1)
    pair = PairSource(source.shards[0].path, tags=tmp_path / "tags")[1]
    assert pair.tags == (("green",), ("green",), ())
    assert len(pair.captions) == 3
