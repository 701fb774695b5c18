"""Peak memory of what `ttd prune`, `data tag` and `train` do around the pairs: it must not grow with their number.

Synthetic shards of 10,000 pairs, each a link to one tar: 1,000,000 and 12,800,000 pairs. Measured, each in a process of
its own: opening all, also with a keep-list of every seventh pair, a dry run, a job's tables (without images) with their
report, and an epoch's order. Wanted: 12.8 times the pairs take at most 1.3 times the memory, but for the few numbers of
8 bytes for each pair that is kept or met in an epoch. It takes three minutes on two busy cores and 400 MB of disk.
Needs Linux.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from speed.methods import peak
from speed.tar_index import SAMPLES, write_tar
from ttd.data.estimate import estimate
from ttd.data.shard_jobs import ShardJob, ShardNotes, run_shards, whole_report
from ttd.data.sources import PairSource, epoch_order
from ttd.data.tables import PAIRS, SCORES

SHARDS = {"1,000,000 pairs": 100, "12,800,000 pairs": 1280}
KEEP, MOST_GROWTH, NUMBER = 7, 1.3, 8
EACH = {"open": 0.0, "keep-list": 4 / KEEP, "dry run": 0.0, "tables": 0.0, "epoch's order": 2.0}  # numbers for a pair


class Scores(ShardJob):
    """A score for each pair, without its image."""

    settings = {"model": "none"}  # noqa: RUF012

    def table(self, source: PairSource, indices: Sequence[int], notes: ShardNotes) -> pa.Table:
        shard, _ = source.shard_row(indices[0])
        if isinstance(indices, range):
            return pa.table([[shard.name] * len(indices), shard.keys(), [0.5] * len(indices)], schema=SCORES)
        pairs = [source.locate(index) for index in indices]
        return pa.table([[s for s, _ in pairs], [k for _, k in pairs], [0.5] * len(pairs)], schema=SCORES)


def write_shards(folder: Path, whole: Path, count: int) -> Path:
    """Links to a tar and its index, and a keep-list of every seventh pair."""
    shards = folder / "cc"
    shards.mkdir(parents=True)
    keys = pa.array([f"{row:09d}" for row in range(0, SAMPLES, KEEP)])
    with pq.ParquetWriter(folder / "keep.parquet", PAIRS, compression="zstd") as writer:
        for number in range(count):
            name = f"{number:05d}.tar"
            (shards / name).symlink_to(whole)
            (shards / f"{name}.index").symlink_to(f"{whole}.index")
            writer.write_table(pa.table([pa.array([f"cc/{name}"] * len(keys)), keys], schema=PAIRS))
    return shards


def work(task: str, place: str) -> None:
    """One task; prints seconds and what it took beyond an idle process, in bytes."""
    folder = Path(place)
    before, start = peak(), time.perf_counter()
    source = PairSource(folder / "cc", keep=folder / "keep.parquet" if task == "keep-list" else None)
    if task == "dry run":
        print(estimate(Scores(), source, 64, seconds=1.0), file=sys.stderr)
    elif task == "tables":
        run_shards(Scores(), source, folder / "tables")
        whole_report(Scores(), source, folder / "tables", 0.1)
    elif task == "epoch's order":
        epoch_order(len(source), 0, 0)
    print(time.perf_counter() - start, peak() - before)


def main() -> None:
    failed = False
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole" / "x.tar"
        whole.parent.mkdir()
        write_tar(whole)
        PairSource(whole)  # writes the index
        for name, count in SHARDS.items():
            write_shards(Path(place) / name, whole, count)
        for task, numbers in EACH.items():
            taken, parts = [], []
            for name, count in SHARDS.items():
                code = f"from speed.job_memory import work; work({task!r}, {str(Path(place) / name)!r})"
                command = [sys.executable, "-c", code]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, memory = map(float, done.stdout.split())
                taken.append(memory - numbers * NUMBER * count * SAMPLES)
                parts.append(f"{name} {memory / 1e6:.0f} MB in {seconds:.1f} s")
            allowed = f", {numbers * NUMBER:.2g} bytes a pair are its own" if numbers else ""
            print(f"job memory, {task}: {', '.join(parts)}{allowed}", flush=True)
            failed |= taken[1] > MOST_GROWTH * max(taken[0], 30e6)
    if failed:
        raise SystemExit("memory grows with the number of pairs")


if __name__ == "__main__":
    main()
