from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import image, sample, write_shards, write_tar
from ttd.data.bad_samples import BadSample
from ttd.data.shard_jobs import ShardJob, ShardNotes, run_shards, table_path, whole_report
from ttd.data.sources import PairSource
from ttd.data.tables import SCORES
from ttd.errors import InputError
from ttd.runs import Ranks


class LengthJob(ShardJob):
    """Scores a pair by its caption's length, and notes which shards it was asked about."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.asked: list[str] = []

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        rows = []
        for i in indices:
            try:
                pair = source[i]
            except BadSample as damage:
                notes.skip(damage)
                continue
            rows.append({"shard": pair.shard, "key": pair.key, "score": len(pair.captions[0]) / 100})
        self.asked += [source.locate(indices[0])[0]] if len(indices) else []
        return pa.Table.from_pylist(rows, schema=SCORES)


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    paths = write_shards(tmp_path / "cc", [6, 6, 0, 6, 6])
    bad = {"bad": {"png": b"", "txt": b"x"}, "worse": {"png": image(0)[:30], "txt": b"x"}, "ok": sample(3)}
    return PairSource([*paths, write_tar(tmp_path / "cc/bad.tar", bad)])


def tables(source: PairSource, folder: Path) -> dict[str, bytes]:
    return {shard.name: table_path(folder, shard).read_bytes() for shard in source.shards}


def test_any_number_of_ranks_writes_the_same_files(source: PairSource, tmp_path: Path) -> None:
    one = run_shards(LengthJob(), source, tmp_path / "one")
    for world in (2, 3, 7):
        folder = tmp_path / str(world)
        jobs = [LengthJob() for _ in range(world)]
        for rank, job in reversed(list(enumerate(jobs))):
            assert whole_report(job, source, folder, 0.1) is None
            run_shards(job, source, folder, limit=1, executor=Ranks(rank, world))
        assert tables(source, folder) == tables(source, tmp_path / "one")
        assert sorted(name for job in jobs for name in job.asked) == sorted(
            shard.name for shard in source.shards if len(shard)
        )
        whole = whole_report(jobs[0], source, folder, 0.1)
        assert whole is not None
        assert whole.to_dict() == one.to_dict()
    assert one.to_dict()["damaged"] == 2


def test_done_shards_are_not_done_again_and_their_damage_still_counts(source: PairSource, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = LengthJob()
    report = run_shards(first, source, folder)
    table_path(folder, source.shards[3]).unlink()
    table_path(folder, source.shards[0]).write_bytes(b"PAR1 half")
    before = tables(PairSource([source.shards[1].path]), folder)
    again, told = LengthJob(), []
    assert run_shards(again, source, folder, progress=told.append).to_dict() == report.to_dict()
    assert again.asked == ["cc/00000.tar", "cc/00003.tar"]
    assert sum(told) == len(source)
    assert tables(PairSource([source.shards[1].path]), folder) == before


def test_a_replaced_shard_is_done_again(source: PairSource, tmp_path: Path) -> None:
    run_shards(LengthJob(), source, tmp_path / "out")
    write_shards(tmp_path / "cc", [7])
    job = LengthJob()
    run_shards(job, PairSource([shard.path for shard in source.shards]), tmp_path / "out")
    assert job.asked == ["cc/00000.tar"]
    assert pq.read_metadata(tmp_path / "out/cc/00000.tar.parquet").num_rows == 7


def test_results_of_other_settings_are_refused(source: PairSource, tmp_path: Path) -> None:
    run_shards(LengthJob(size=224), source, tmp_path / "out")
    with pytest.raises(InputError, match="size was 224, now 448"):
        run_shards(LengthJob(size=448), source, tmp_path / "out")
    with pytest.raises(InputError, match="flip was None, now True"):
        run_shards(LengthJob(size=224, flip=True), source, tmp_path / "out")


def test_too_much_damage_stops_also_in_a_job_that_continues(source: PairSource, tmp_path: Path) -> None:
    run_shards(LengthJob(), source, tmp_path / "out", limit=0.5)
    with pytest.raises(InputError, match=r"more than 1\.0% of the 27 pairs"):
        run_shards(LengthJob(), source, tmp_path / "out", limit=0.01)
    with pytest.raises(InputError, match="more than"):
        run_shards(LengthJob(), source, tmp_path / "new", limit=0.01)
    assert not (tmp_path / "new/cc/bad.tar.parquet").exists()


def test_files_that_vanish_are_no_success(source: PairSource, tmp_path: Path) -> None:
    class Vanishing(LengthJob):
        """Somebody removes the folder when the last shard is in work."""

        def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
            if len(indices) and source.locate(indices[0])[0] == "cc/bad.tar":
                shutil.rmtree(tmp_path / "out")
            return super().table(source, indices, notes)

    with pytest.raises(InputError, match=r"00000\.tar\.parquet was removed .* same command again"):
        run_shards(Vanishing(), source, tmp_path / "out", limit=1)
