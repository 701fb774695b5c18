"""Write pairs as tar shards that carry the words chosen for their captions, one source shard after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from ttd.data.bad_samples import BadSample
from ttd.data.packing import add_sample, claim, storable_image
from ttd.data.shard_jobs import table_path
from ttd.data.sources import PairSource
from ttd.data.word_table import chosen_words
from ttd.errors import InputError
from ttd.runs import FileToMake, make_files, read_ahead


@dataclass(frozen=True)
class _Ready:
    """A pair as it is written."""

    index: int
    key: str
    kind: str
    image: bytes
    captions: tuple[str, ...]
    record: dict[str, Any]


class TaggedShards:
    """Shards `FOLDER/00000.tar` ... of the pairs for which words were chosen.

    A sample is its image as it was, a .txt with its first caption, and its .json with `captions`, `tags` (for every
    caption a list of words) and where it came from: `source_shard`, `source`. Pairs without words are left out.
    A tar appears whole or not at all, and what it holds depends on source and tables alone: one that is there is done.

    Args:
        source: the pairs.
        tables: folder with the tables of `TagTableJob`.
        folder: for the shards.
        settings: of the tables; a folder with shards of others is refused.
        per_shard: most pairs in a shard; a source shard with more becomes several.
        threads: that read images.

    Raises:
        InputError: the folder holds other shards.
    """

    def __init__(
        self,
        source: PairSource,
        tables: Path,
        folder: Path,
        settings: dict[str, Any],
        *,
        per_shard: int = 10_000,
        threads: int = 4,
    ) -> None:
        self._source, self._tables, self._folder = source, tables, folder
        self._per_shard, self._threads = per_shard, threads
        parts = [-(-len(source.indices(number)) // per_shard) for number in range(len(source.shards))]
        self._first = [0, *accumulate(parts)]
        paths = [shard.path for shard in source.shards]
        if any(isinstance(path, Path) and path.resolve().parent == folder.resolve() for path in paths):
            raise InputError(f"{folder} holds the pairs themselves: choose another folder for --shards")
        claim(folder, {"source": source.fingerprint(), "per_shard": per_shard, "words": settings})

    def write(self, number: int, progress: Callable[[int], object] = lambda pairs: None) -> list[Path]:
        """The shards of the source's shard `number`, whose table must be there.

        Args:
            number: of the source's shard.
            progress: is told how many pairs are done.

        Raises:
            InputError: a pair that had words cannot be read any more.
        """
        indices = self._source.indices(number)
        units = []
        for place, part in enumerate(range(self._first[number], self._first[number + 1])):
            mine = indices[place * self._per_shard : (place + 1) * self._per_shard]
            path = self._folder / f"{part:05d}.tar"
            units.append(FileToMake(path.name, path, partial(self._write_part, number, mine), len(mine)))
        make_files(units, progress=progress)
        return [unit.path for unit in units]

    def _write_part(self, number: int, indices: range, path: Path) -> None:
        words = self._words(number)
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            self._fill(tar, [index for index in indices if self._source.locate(index)[1] in words], words)

    def _words(self, number: int) -> dict[str, Any]:
        """Key -> the words of its captions, without those that have none."""
        table = table_path(self._tables, self._source.shards[number])
        found: dict[str, Any] = {}
        for batch in chosen_words(table):
            pairs = zip(batch.column("key").to_pylist(), batch.column("tags").to_pylist(), strict=True)
            found |= {key: tags for key, tags in pairs if tags is not None}
        return found

    def _fill(self, tar: tarfile.TarFile, indices: list[int], words: dict[str, Any]) -> None:
        for batch in read_ahead(self._read, indices, 64, self._threads, BadSample):
            for one in batch:
                if isinstance(one, BadSample):
                    raise InputError(f"{one}; it was good when its words were chosen: start again with another folder")
                origin = {"source": one.key, "source_shard": self._source.locate(one.index)[0]}
                record = {**one.record, "captions": one.captions, "tags": words[one.key], **origin}
                add_sample(tar, f"{one.index:09d}", one.kind, one.image, one.captions[0], record)

    def _read(self, index: int) -> _Ready:
        shard, row = self._source.shard_row(index)
        key, captions = shard.key(row), shard.captions(row)
        kind, image = storable_image(shard.image_bytes(row), shard.name, key)
        return _Ready(index, key, kind, image, captions, shard.record(row))
