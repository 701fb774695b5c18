"""Opening the indices of 1,280 shards with 10,000 samples each, and reading at random: time, and memory that stays.

Every shard is a link to one tar, for 12,800,000 pairs would fill the disk. Expected on 2 CPU cores: about a minute;
opening costs at most a hundredth of indexing, and 98 times the pairs at most 1.3 times the memory. Needs Linux.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

SAMPLES = 10_000
SHARDS = {"few": 13, "many": 1280}
MOST_GROWTH, MOST_SHARE = 1.3, 0.01
_CHILD = """
import json, random, sys, time
from pathlib import Path
from ttd.data.tar_shard import TarShard

start = time.process_time()
shards = [TarShard(path) for path in sorted(Path(sys.argv[1]).glob("*.tar"))]
opened = (time.process_time() - start) / len(shards)
draws = random.Random(0)
places = [(draws.choice(shards), draws.randrange(len(shards[0]))) for _ in range(5000)]
start = time.process_time()
wrong = sum(shard.key(row) != f"{row:09d}" or shard.captions(row) != (f"dog {row}",) for shard, row in places)
read = (time.process_time() - start) / len(places)
# Not ru_maxrss, which a child inherits from the process that started it.
(line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
peak = int(line.split()[1]) / 1024
print(json.dumps({"opened": opened, "read": read, "wrong": wrong, "peak": peak, "pairs": sum(map(len, shards))}))
"""


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(SAMPLES):
            for suffix, data in {"jpg": b"x" * 1000, "txt": f"dog {number}".encode(), "json": b"{}"}.items():
                info = tarfile.TarInfo(f"{number:09d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def measure(folder: Path) -> dict[str, float]:
    run = subprocess.run([sys.executable, "-c", _CHILD, str(folder)], capture_output=True, check=True)
    found: dict[str, float] = json.loads(run.stdout)
    if found["wrong"]:
        raise SystemExit("pairs are not what they should be")
    return found


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole" / "x.tar"
        whole.parent.mkdir()
        write_tar(whole)
        indexed = measure(whole.parent)["opened"]
        for name, count in SHARDS.items():
            folder = Path(place) / name
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:05d}.tar").symlink_to(whole)
                (folder / f"{number:05d}.tar.index").symlink_to(f"{whole}.index")
            found[name] = measure(folder)
    many = found["many"]
    growth, share = many["peak"] / found["few"]["peak"], many["opened"] / indexed
    print(
        f"tar index: {SAMPLES:,} samples indexed in {indexed:.2f} s, an index opened in {many['opened'] * 1e3:.1f} ms "
        f"({share:.4f} of it, wanted: at most {MOST_SHARE}); a random caption in {many['read'] * 1e6:.0f} us"
    )
    print(
        f"tar index: {many['pairs']:,} pairs take {many['peak']:.0f} MB, {growth:.2f} times the memory of "
        f"{found['few']['pairs']:,} (wanted: at most {MOST_GROWTH})"
    )
    if growth > MOST_GROWTH or share > MOST_SHARE:
        raise SystemExit("opening an index takes too long, or its memory grows with the number of pairs")


if __name__ == "__main__":
    main()
