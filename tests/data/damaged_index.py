"""Seeded damage to the index of a shard, in a process of its own, which damage may kill: `python -m` with FOLDER SEED.

Each case writes what it is going to do, damages, reads every pair and compares it with the truth; the last line of its
output counts what came out.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.data.samples import sample, write_tar
from tests.faults.mutations import cut, flip, patch
from ttd.data import tar_index
from ttd.data.tar_shard import TarShard
from ttd.errors import InputError

FLIPS, CUTS, PATCHES = 800, 60, 60
Pairs = list[tuple[str, tuple[str, ...], bytes]]


def pairs_of(shard: TarShard) -> Pairs:
    """All keys, captions and images, the keys asked for in both ways."""
    tar_index._block.cache_clear()
    keys = shard.keys().to_pylist()
    return [(keys[row], shard.captions(row), shard.image_bytes(row)) for row in range(len(shard))]


def main(folder: Path, seed: int) -> None:
    """Runs all cases, every second one on an index that is in use."""
    logging.disable()
    os.fsync = lambda number: None  # thousands of them take a minute, and nobody cuts the power
    draws = random.Random(seed)
    path = write_tar(folder / "00000.tar", {f"{n:09d}": sample(n) for n in range(6)})
    index = folder / "00000.tar.index"
    truth = pairs_of(TarShard(path))
    whole = index.read_bytes()
    kinds: list[Callable[[bytes, random.Random], bytes]] = [flip] * FLIPS + [cut] * CUTS + [patch] * PATCHES
    counts: Counter[str] = Counter()
    for number, damage in enumerate(kinds):
        in_use = number % 2 == 1
        print(number, damage.__name__, in_use, flush=True)
        index.write_bytes(whole)
        shard = TarShard(path)
        index.write_bytes(damage(whole, draws))
        try:
            found = pairs_of(shard if in_use else TarShard(path))
            counts["right" if found == truth else "different"] += 1
        except InputError:
            counts["refused"] += 1
        # The first lines are read when an index is opened alone, so in use damage there is neither seen nor felt.
        counts["repaired" if index.read_bytes() == whole else "unseen" if in_use else "left"] += 1
    swapped(folder, draws, counts)
    print(json.dumps(counts))


def swapped(folder: Path, draws: random.Random, counts: Counter[str]) -> None:
    """Tars of the same size and time with other samples, their indices with them or not."""
    for number in range(40):
        place = folder / f"swap{number}"
        first, second = draws.sample(range(8), 2)
        tars = [
            write_tar(place / name / "x.tar", {f"{n:09d}": sample(n + 256) for n in (*range(first, first + 3), other)})
            for name, other in (("a", 20), ("b", 20 + second))
        ]
        stamp = tars[0].stat()
        os.utime(tars[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        before = TarShard(tars[0])
        truth = pairs_of(TarShard(tars[1]))
        if number % 4 == 0:  # the index goes along
            shutil.copy2(tars[0].with_name("x.tar.index"), tars[1].with_name("x.tar.index"))
            counts["right" if pairs_of(TarShard(tars[1])) == truth else "different"] += 1
            continue
        if number % 4 == 1:
            os.replace(tars[1], tars[0])
        else:
            shutil.copy2(tars[1], tars[0])
        print("swap", number, flush=True)
        try:
            counts["right" if pairs_of(before if number % 4 == 2 else TarShard(tars[0])) == truth else "different"] += 1
        except InputError:
            counts["refused"] += 1
            counts["right" if pairs_of(TarShard(tars[0])) == truth else "different"] += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
