"""Peak memory of the cut over 12,800,000 synthetic scores against 128,000: it must not grow with the pairs.

Expected on 2 CPU cores: about 20 seconds, most of it to write the scores; 100 times the pairs, at most 1.3
times the memory. Needs Linux.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ttd.data.tables import SCORES

PER_SHARD = 10_000
SHARDS = {"few": 13, "many": 1280}  # CC3M + CC12M have 12,795,608 pairs
MOST_GROWTH = 1.3
_CHILD = """
import json, sys, time
from pathlib import Path
from ttd.data.pruning import prune

folder = Path(sys.argv[1])
start = time.perf_counter()
found = prune(sorted(folder.rglob("*.tar.parquet")), folder / "keep.parquet").to_dict()
# Not ru_maxrss, which a child inherits from the process that started it.
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
peak = int(line.split()[1]) / 1024
print(json.dumps({**found, "seconds": time.perf_counter() - start, "peak": peak}))
"""


def write_scores(folder: Path, shards: int) -> tuple[float, float]:
    """Score files as `ttd prune` writes them; gives mean and deviation of all, computed at once."""
    draws = np.random.default_rng(0)
    scores = draws.normal(0.25, 0.05, (shards, PER_SHARD)).astype(np.float32)
    keys = pa.array([f"{i:09d}" for i in range(PER_SHARD)])
    folder.mkdir(parents=True)
    for i in range(shards):
        names = pa.array([f"cc/{i:05d}.tar"] * PER_SHARD)
        table = pa.table([names, keys, scores[i]], schema=SCORES)
        pq.write_table(table, folder / f"{i:05d}.tar.parquet", compression="zstd")
    exact = scores.astype(np.float64)
    return float(exact.mean()), float(exact.std())


def main() -> None:
    peaks = {}
    with tempfile.TemporaryDirectory() as place:
        for name, shards in SHARDS.items():
            mean, deviation = write_scores(Path(place) / name, shards)
            run = subprocess.run(
                [sys.executable, "-c", _CHILD, str(Path(place) / name)], capture_output=True, check=True
            )
            found = json.loads(run.stdout)
            error = max(abs(found["sets"]["all"]["mean"] - mean), abs(found["sets"]["all"]["deviation"] - deviation))
            if error > 1e-12:
                raise SystemExit(f"mean or deviation is off by {error:.1e}")
            peaks[name] = found["peak"]
            print(
                f"prune memory: {found['pairs']:,} pairs cut in {found['seconds']:.1f} s, {found['kept']:,} kept, "
                f"peak {found['peak']:.0f} MB, mean and deviation within {error:.0e} of the exact ones"
            )
    growth = peaks["many"] / peaks["few"]
    print(f"prune memory: {growth:.2f} times the memory for 98 times the pairs (wanted: at most {MOST_GROWTH})")
    if growth > MOST_GROWTH:
        raise SystemExit("memory grows with the number of pairs")


if __name__ == "__main__":
    main()
