from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from tests.colour_encoder import ColourEncoder
from tests.data.samples import image, json_bytes, write_shards, write_tar
from tests.tiny_models import tiny_clip, tiny_tcl
from tests.tolerance import COSINES, assert_close
from ttd.data.bad_samples import BROKEN_IMAGE, BadSample
from ttd.data.calibration_fit import read_counts
from ttd.data.score_jobs import WIDTH, ScoreJob, WordScoreJob, centre_square
from ttd.data.shard_jobs import ShardNotes, run_shards, table_path, whole_report
from ttd.data.sources import PairSource
from ttd.errors import InputError
from ttd.images import prepare_pixels


def scored(job: ScoreJob, source: PairSource) -> tuple[dict[str, float], list[BadSample]]:
    damaged: list[BadSample] = []
    table = job.table(source, range(len(source)), ShardNotes(damaged.append))
    return dict(zip(table["key"].to_pylist(), table["score"].to_pylist(), strict=True)), damaged


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    samples = {
        "right": {"png": image(0), "txt": b"red"},
        "wrong": {"png": image(0), "txt": b"blue"},
        "both": {"png": image(0), "json": json_bytes({"captions": ["red", "blue"]})},
        "broken": {"png": image(0)[:60], "txt": b"red"},
        "green": {"png": image(1), "txt": b"green"},
    }
    return PairSource(write_tar(tmp_path / "x.tar", samples))


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_scores_are_cosines_and_damage_is_named(source: PairSource, batch: int) -> None:
    found, damaged = scored(ScoreJob(ColourEncoder(), batch=batch), source)
    assert list(found) == ["right", "wrong", "both", "green"]
    assert found["right"] == pytest.approx(1, abs=0.01)
    assert found["wrong"] == pytest.approx(-1 / 3, abs=0.01)
    assert_close(found["both"], (found["right"] + found["wrong"]) / 2, 2 * 4, scale=1)
    assert found["green"] == pytest.approx(1, abs=0.01)
    assert [(d.key, d.reason) for d in damaged] == [("broken", BROKEN_IMAGE)]


@pytest.mark.parametrize("flip", [False, True])
def test_equals_the_towers_of_clip_called_by_hand(tmp_path: Path, flip: bool) -> None:
    """transformers' own image and text embeddings of the same square."""
    encoder = tiny_clip()
    source = PairSource(write_shards(tmp_path, [5]))
    found, _ = scored(ScoreJob(encoder, flip=flip, batch=2), source)
    model = encoder.backbone
    for i in range(5):
        pair = source[i]
        square = pair.image.resize((64, 64), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(square).transpose(2, 0, 1) / 255.0).float()
        pixels = (pixels - torch.tensor(encoder.mean)[:, None, None]) / torch.tensor(encoder.std)[:, None, None]
        views = [pixels, pixels.flip(-1)] if flip else [pixels]
        with torch.no_grad():
            image = normalize(model.get_image_features(torch.stack(views)).pooler_output, dim=-1)
            ids, _ = encoder.tokenize(pair.captions)
            text = normalize(encoder.embed_tokens(ids), dim=-1)
        assert_close(found[pair.key], (image @ text.T).mean(), COSINES, scale=1)


def test_the_middle_square_of_a_image() -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    assert np.asarray(centre_square(Image.fromarray(pixels), 20)).min() == 255
    assert np.asarray(centre_square(Image.fromarray(pixels.transpose(1, 0, 2)), 10))[1:-1].min() == 255
    assert centre_square(Image.new("RGB", (1, 500)), 32).size == (32, 32)


def test_sizes() -> None:
    assert ScoreJob(ColourEncoder()).size == 32
    assert ScoreJob(tiny_tcl()).size == 224  # at which its authors scored, not its own 448
    assert ScoreJob(ColourEncoder(), size=48).size == 48
    with pytest.raises(InputError, match="multiple"):
        ScoreJob(ColourEncoder(), size=33)


def test_captions_that_are_cut_are_counted_also_when_a_job_goes_on(tmp_path: Path) -> None:
    samples = {name: {"png": image(0), "txt": b"dog " * count} for name, count in (("long", 80), ("short", 3))}
    write_tar(tmp_path / "a.tar", samples)
    source, job = PairSource(tmp_path / "a.tar"), ScoreJob(tiny_clip(), size=64)
    for _ in range(2):  # the second time it reads what the first wrote
        report = run_shards(job, source, tmp_path / "scores")
        assert report.to_dict()["truncated_captions"] == 1
    whole = whole_report(job, source, tmp_path / "scores", 0.1)
    assert whole is not None
    assert whole.cut_sentence(77) == (
        "1 caption was longer than the 77 tokens that the model takes: only the beginning counted"
    )


def test_jpegs_are_decoded_at_a_fraction_of_their_size(tmp_path: Path) -> None:
    """The score stays within what docs/data.md says; what has no such way is decoded as ever."""
    rng = np.random.default_rng(0)
    samples = {}
    for number, ending in enumerate(("jpg", "png", "jpg")):
        smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            (320, 240), Image.Resampling.BICUBIC
        )
        stream = BytesIO()
        smooth.save(stream, "JPEG" if ending == "jpg" else "PNG", quality=95)
        samples[str(number)] = {ending: stream.getvalue(), "txt": b"a red dog"}
    source = PairSource(write_tar(tmp_path / "x.tar", samples))
    assert [source.pair(n, 64).image.size for n in range(3)] == [(160, 120), (320, 240), (160, 120)]
    assert [source.pair(n, 121).image.size for n in range(3)] == [(320, 240)] * 3
    job = ScoreJob(tiny_clip(), size=64)
    found, _ = scored(job, source)
    squares = [np.asarray(centre_square(source[n].image, 64)) for n in range(3)]
    whole = job.score(squares, [source[n].captions for n in range(3)]).tolist()
    assert found["1"] == pytest.approx(whole[1], abs=1e-5)
    assert [found[str(n)] for n in range(3)] == pytest.approx(whole, abs=0.012)


WORDS = ["red", "green", "blue"]


@pytest.fixture
def worded(tmp_path: Path) -> PairSource:
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
def test_own_words_and_those_of_other_captions_are_counted(worded: PairSource, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    job = WordScoreJob(encoder, WORDS)
    assert len(run_shards(job, worded, tmp_path / "out")) == 0
    on = [scores(encoder, number) for number in range(6)]
    own = [on[0]["red"], on[1]["green"], on[2]["blue"], on[2]["green"], on[4]["blue"], on[5]["blue"]]
    # Image 1's caption says "reddish", which is akin to "red"; green is said by two other captions of image 0's.
    others = [on[0][word] for word in ("green", "green", "blue")] + [on[1]["blue"]] + [on[2]["red"]]
    others += [on[3][word] for word in ("red", "green", "green", "blue")]
    counts = read_counts(table_path(tmp_path / "out", shard) for shard in worded.shards)
    for found, expected in ((counts.own, own), (counts.others, others)):
        values = np.repeat(counts.scores, found)
        np.testing.assert_allclose(np.sort(values), np.sort(expected), atol=WIDTH)
    schema = pq.read_schema(table_path(tmp_path / "out", worded.shards[0]))
    assert schema.names == ["bin", "own", "others"]


def test_settings_that_decide_the_counts_are_kept(worded: PairSource, tmp_path: Path) -> None:
    run_shards(WordScoreJob(ColourEncoder(), WORDS), worded, tmp_path / "out")
    for job in (WordScoreJob(ColourEncoder(), WORDS[:2]), WordScoreJob(ColourEncoder(), WORDS, batch=16)):
        with pytest.raises(InputError, match="other settings"):
            run_shards(job, worded, tmp_path / "out")
    with pytest.raises(InputError, match="at least 2"):
        WordScoreJob(ColourEncoder(), WORDS, batch=1)


def test_a_damaged_image_is_named_and_skipped(tmp_path: Path) -> None:
    samples = {"a": {"png": image(0), "txt": b"red"}, "b": {"png": b"no", "txt": b"green"}}
    worded = PairSource([write_tar(tmp_path / "0.tar", samples)])
    report = run_shards(WordScoreJob(ColourEncoder(), WORDS), worded, tmp_path / "out", limit=1)
    assert [sample["key"] for sample in report.to_dict()["samples"]] == ["b"]
    counts = read_counts([table_path(tmp_path / "out", worded.shards[0])])
    assert (counts.own.sum(), counts.others.sum()) == (1, 0)
