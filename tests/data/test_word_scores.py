from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.colour_encoder import ColourEncoder
from tests.data.samples import image, write_tar
from ttd.data.calibration_fit import read_counts
from ttd.data.shard_jobs import run_shards, table_path
from ttd.data.sources import PairSource
from ttd.data.word_scores import WIDTH, WordScoreJob
from ttd.errors import InputError
from ttd.images import prepare_pixels

WORDS = ["red", "green", "blue"]


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    """Of shard 0 image n has the colour n % 4 (the last grey); captions name colours, one of them twice."""
    captions = ["a red red thing", "green and reddish", "blue sky, green grass", "grey"]
    samples = {f"{n}": {"png": image(n), "txt": text.encode()} for n, text in enumerate(captions)}
    more = {f"{n}": {"png": image(n), "txt": b"blue"} for n in range(4, 6)}
    return PairSource([write_tar(tmp_path / "0.tar", samples), write_tar(tmp_path / "1.tar", more)])


def scores(encoder: ColourEncoder, number: int) -> dict[str, float]:
    """s_pixel of each word on an image, from its cosines."""
    from io import BytesIO

    from PIL import Image

    pixels = prepare_pixels(Image.open(BytesIO(image(number))), (32, 32), encoder.mean, encoder.std)[None]
    sim = encoder.similarity(encoder.encode_image(pixels), encoder.encode_text(WORDS))
    return dict(zip(WORDS, sim.amax((-2, -1))[0].tolist(), strict=True))


@torch.no_grad()
def test_own_words_and_those_of_other_captions_are_counted(source: PairSource, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    job = WordScoreJob(encoder, WORDS)
    assert len(run_shards(job, source, tmp_path / "out")) == 0
    on = [scores(encoder, number) for number in range(6)]
    own = [on[0]["red"], on[1]["green"], on[2]["blue"], on[2]["green"], on[4]["blue"], on[5]["blue"]]
    # Image 1's caption says "reddish", which is akin to "red"; green is said by two other captions of image 0's.
    others = [on[0][word] for word in ("green", "green", "blue")] + [on[1]["blue"]] + [on[2]["red"]]
    others += [on[3][word] for word in ("red", "green", "green", "blue")]
    counts = read_counts(table_path(tmp_path / "out", shard) for shard in source.shards)
    for found, expected in ((counts.own, own), (counts.others, others)):
        values = np.repeat(counts.scores, found)
        np.testing.assert_allclose(np.sort(values), np.sort(expected), atol=WIDTH)
    schema = pq.read_schema(table_path(tmp_path / "out", source.shards[0]))
    assert schema.names == ["bin", "own", "others"]


def test_settings_that_decide_the_counts_are_kept(source: PairSource, tmp_path: Path) -> None:
    run_shards(WordScoreJob(ColourEncoder(), WORDS), source, tmp_path / "out")
    for job in (WordScoreJob(ColourEncoder(), WORDS[:2]), WordScoreJob(ColourEncoder(), WORDS, batch=16)):
        with pytest.raises(InputError, match="other settings"):
            run_shards(job, source, tmp_path / "out")
    with pytest.raises(InputError, match="at least 2"):
        WordScoreJob(ColourEncoder(), WORDS, batch=1)


def test_a_damaged_image_is_named_and_skipped(tmp_path: Path) -> None:
    samples = {"a": {"png": image(0), "txt": b"red"}, "b": {"png": b"no", "txt": b"green"}}
    source = PairSource([write_tar(tmp_path / "0.tar", samples)])
    report = run_shards(WordScoreJob(ColourEncoder(), WORDS), source, tmp_path / "out", limit=1)
    assert [sample["key"] for sample in report.to_dict()["samples"]] == ["b"]
    counts = read_counts([table_path(tmp_path / "out", source.shards[0])])
    assert (counts.own.sum(), counts.others.sum()) == (1, 0)
