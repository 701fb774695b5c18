"""What a job would take: counted by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.colour_encoder import ColourEncoder
from tests.data.samples import sample, write_shards, write_tar
from ttd.data import estimate as room
from ttd.data.estimate import duration, encoding_line, estimate, megabytes
from ttd.data.shard_jobs import ShardJob, ShardNotes
from ttd.data.sources import BadSample, PairSource
from ttd.data.tables import SCORES
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.views import encoding_time


class Clocked(ShardJob):
    """Takes 3 s to begin with and half a second for each pair."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings = {}
        self.now, self.begun = 0.0, False
        self.done: list[list[int]] = []
        monkeypatch.setattr(room.time, "perf_counter", lambda: self.now)

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        self.now += (0.0 if self.begun else 3.0) + 0.5 * len(indices)
        self.begun = True
        self.done.append(list(indices))
        rows = []
        for index in indices:
            try:
                rows.append((*source.locate(index), 0.1 * len(source[index].captions)))
            except BadSample as damage:
                notes.skip(damage)
        return pa.table([[row[i] for row in rows] for i in range(3)], schema=SCORES)


def test_the_first_batch_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PairSource(write_shards(tmp_path / "cc", [40, 60]))
    job = Clocked(monkeypatch)
    found = estimate(job, source, batch=4, processes=5, seconds=10)
    # 4 pairs in 5 s: 8 in 10 s were expected, and 8 took 4 s.
    assert [len(done) for done in job.done] == [4, 8]
    assert not set(job.done[0]) & set(job.done[1])
    assert len({index // 40 for done in job.done for index in done}) > 1  # spread over the shards
    assert (found.pairs, found.files, found.measured, found.rate) == (100, 2, 8, 2.0)
    assert found.whole == 100 / 2 / 5
    assert "100 pairs in 2 files" in str(found)
    assert "10 s for all by 5 processes" in str(found)
    assert found.size > 100


def test_few_pairs_are_all_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "cc/0.tar", {"a": sample(0), "b": {"png": b"no", "txt": b"x"}, "c": sample(1)})
    found = estimate(Clocked(monkeypatch), PairSource(path), batch=8)
    assert (found.measured, found.damaged, found.seconds) == (3, 1, 4.5)
    assert "3, 1 of them damaged" in str(found)


def test_times_and_sizes_as_people_say_them() -> None:
    times = {0.2: "1 s", 59: "59 s", 60: "1 min", 303: "5 min 3 s", 7800: "2 h 10 min", 273_600: "3 d 4 h"}
    assert {seconds: duration(seconds) for seconds in times} == times
    sizes = {12: "12 bytes", 1234: "1.23 kB", 310e6: "310 MB", 1.2e9: "1.2 GB"}
    assert {size: megabytes(size) for size in sizes} == sizes


def test_a_limit_takes_the_first_pairs_and_opens_no_more_files(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "cc", [3, 4, 5])
    shards[2].write_bytes(b"never opened")
    source = PairSource(tmp_path / "cc", limit=5)
    assert [shard.name for shard in source.shards] == ["cc/00000.tar", "cc/00001.tar"]
    assert len(source) == 5
    assert [source.indices(number) for number in range(2)] == [range(3), range(3, 5)]
    whole = PairSource(shards[:2])
    assert [source.locate(index) for index in range(5)] == [whole.locate(index) for index in range(5)]
    assert source.fingerprint() != whole.fingerprint()


def test_what_many_windows_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Options(size=32, scales=(1.0, 0.5), window=16, flip=True)
    monkeypatch.setattr(room, "encoding_time", lambda *given: ([40, 8], 2.5))
    assert encoding_line(ColourEncoder(), (480, 640), look, 7) is None
    said = encoding_line(ColourEncoder(), (480, 640), look, 100)
    assert said is not None
    assert "640 x 480 pixels is encoded in 48 windows (40 + 8 in its scales, half of them mirrored)" in said
    assert "about 2 s, 4 min 10 s for 100 images" in said


def test_an_image_that_cannot_be_encoded_is_left_to_its_answer() -> None:
    tiny = Options(size=32, window=3, stride=1, resize="opencv")  # a window smaller than a patch
    with pytest.raises(InputError, match="does not fill a patch"):
        encoding_time((32, 32), ColourEncoder(), tiny)
    assert encoding_line(ColourEncoder(), (32, 32), tiny, 1000) is None
