"""Pairs written as tar shards: those of a folder or captions file, or any with the words chosen for their captions."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from ttd.data.bad_samples import BadSample, BadSampleReport
from ttd.data.shard_jobs import table_path
from ttd.data.sources import PairSource, decode_image
from ttd.data.word_table import chosen_words
from ttd.errors import InputError
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.safe_paths import name_fault
from ttd.files.schema import mapping
from ttd.runs import FileToMake, differences, make_files, read_ahead

RECORD = "pack.json"
_KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


def pack(
    source: PairSource,
    folder: Path,
    *,
    per_shard: int = 10_000,
    prefix: str = "",
    limit: float = 0.1,
    threads: int = 4,
    progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[list[Path], BadSampleReport]:
    """Write shards `FOLDER/PREFIX00000.tar` ... that webdataset, img2dataset's readers and `PairSource` read.

    A sample is its image as it was, a .txt with its first caption and a .json with all `captions` and the
    `source` key. Every image is decoded once as a check; damaged pairs are left out. The bytes written
    depend on the source alone, so an interrupted job is simply run again.

    Args:
        source: what to pack.
        folder: for the shards; must not hold shards of another source.
        per_shard: pairs in a shard, before damaged ones are left out.
        prefix: of the shards' names.
        limit: share of damaged pairs above which the job stops.
        threads: that read and check images.
        progress: receives the number of pairs that are done.

    Returns:
        the shards, and the damage.

    Raises:
        InputError: the folder holds other shards, or too much is damaged.
    """
    if per_shard < 1:
        raise InputError(f"a shard needs at least one pair, not {per_shard}")
    if name_fault(f"{prefix}00000"):
        raise InputError(f"the prefix {prefix!r} must be the beginning of a file name, without folders")
    claim(folder, {"source": source.fingerprint(), "per_shard": per_shard, "prefix": prefix})
    report = source.report(limit)
    units = []
    for number, first in enumerate(range(0, len(source), per_shard)):
        path = folder / f"{prefix}{number:05d}.tar"
        indices = range(first, min(first + per_shard, len(source)))
        units.append(FileToMake(path.name, path, partial(_write_shard, source, indices, report, threads, progress)))
    make_files(units, again=True)  # for the report's sake, which names the damage in all of them
    return [unit.path for unit in units], report


def claim(folder: Path, record: dict[str, Any]) -> None:
    """Note in a folder whose shards it gets; raises `InputError` where it holds others."""
    path = folder / RECORD
    try:
        before = read_json(path, mapping())
    except (OSError, InputError):
        before = {}
    if (other := differences(before, record)) and any(folder.glob("*.tar")):
        raise InputError(f"{folder} holds other shards ({other}): choose another --out or empty it")
    write_file(path, json.dumps(record) + "\n")


def _write_shard(
    source: PairSource,
    indices: range,
    report: BadSampleReport,
    threads: int,
    progress: Callable[[int], None],
    path: Path,
) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for batch in read_ahead(lambda index: _checked(source, index), indices, 64, threads, BadSample):
            for one in batch:
                if isinstance(one, BadSample):
                    report.add(one)
                    continue
                index, image, kind, captions, key = one
                add_sample(tar, f"{index:09d}", kind, image, captions[0], {"captions": captions, "source": key})
            progress(len(batch))


def add_sample(tar: tarfile.TarFile, name: str, kind: str, image: bytes, caption: str, record: dict[str, Any]) -> None:
    """Append a sample's three members: NAME.KIND, NAME.txt, NAME.json."""
    for suffix, data in (
        (kind, image),
        ("txt", caption.encode()),
        ("json", json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")),
    ):
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def storable_image(data: bytes, shard: str, key: str, image: Image.Image | None = None) -> tuple[str, bytes]:
    """Suffix and bytes of an image: as it is, or as PNG where shards do not have its format.

    Args:
        data: the encoded image.
        shard, key: for the `BadSample` that is raised where it cannot be decoded.
        image: the decoded image, where that is at hand.
    """
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if kind is not None:
        return kind, data
    stream = io.BytesIO()
    (image or decode_image(data, shard, key)).save(stream, "PNG")
    return "png", stream.getvalue()


def _checked(source: PairSource, index: int) -> tuple[int, bytes, str, tuple[str, ...], str]:
    """A pair's bytes, after decoding them; formats that shards do not have become PNG."""
    shard, row = source.shard_row(index)
    captions, data, key = shard.captions(row), shard.image_bytes(row), shard.key(row)
    kind, data = storable_image(data, shard.name, key, decode_image(data, shard.name, key))
    return index, data, kind, captions, key


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
            progress: receives the number of pairs that are done.

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
