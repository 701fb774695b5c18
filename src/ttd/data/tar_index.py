"""Where each sample's members are in a tar: scanned once, stored in a file, and checked before every use.

The file (`ttd.data.tar_index_file`) counts only where its digest is right, every number in it is possible, it was made
for a tar of this size and these times, and the headers that it names are there. In any doubt the tar is gone through
again. It is read, never mapped: a mapped file that is cut off kills the process. What stays in memory is a few numbers
for each block of samples, so that thousands of shards fit.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import posixpath
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ttd.data.remote import File, RemoteFile
from ttd.data.tar_index_file import (
    ROW,
    IndexDoubt,
    Member,
    Stamp,
    TarEnd,
    as_array,
    members,
    members_of,
    opened,
    read_at,
    sample_names,
    written,
)
from ttd.encoders.loading.downloads import cache_folder
from ttd.errors import InputError
from ttd.files import DISK_FULL, write_file

log = logging.getLogger(__name__)

_ROWS_IN_BLOCK = 128
_BLOCKS_HELD = 256
_MOST_LINKS = 40  # from link to link: more lead in a circle
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, *DISK_FULL)


@dataclass(frozen=True)
class TarSample:
    """A key and its members by kind, those that it has."""

    key: str
    members: dict[str, Member]


class TarIndex:
    """The samples of a tar, in the order in which they begin there. It may be shared by threads, forked, pickled.

    Args:
        content: the index file, which is checked.
        tar: the tar.
        stamp: its state.
        path: the index file, from which samples are read when they are asked for; None: they stay in memory.

    Attributes:
        stamp: of the tar when it was opened.
        damage: reason and detail where the tar ends too early or is none.
        twice: numbers of the samples that repeat the name of an earlier one.

    Raises:
        IndexDoubt: it is damaged, impossible, or was made for another tar.
    """

    def __init__(self, content: bytes, tar: File, stamp: Stamp, path: Path | None) -> None:
        found = opened(content, tar, stamp)
        self.stamp, self.damage, self.twice = stamp, found.damage, found.twice
        self.path, self._content = path, content if path is None else b""
        self._length = len(found.rows)
        self._starts = (found.start, found.start + found.rows.nbytes)
        ends = found.rows["key_end"][_ROWS_IN_BLOCK - 1 : -1 : _ROWS_IN_BLOCK].tolist()
        self._key_starts = [0, *ends, len(found.keys)]
        self._checks = []
        body = memoryview(content)
        for number in range(-(-self._length // _ROWS_IN_BLOCK)):
            rows, keys = (body[offset : offset + size] for offset, size in self._block_places(number))
            self._checks.append(zlib.crc32(keys, zlib.crc32(rows)))

    def __len__(self) -> int:
        """Samples."""
        return self._length

    def keys(self) -> pa.Array:
        """All keys, in order; raises `IndexDoubt` where the file has changed."""
        blocks = [self.checked_block(number) for number in range(len(self._checks))]
        ends = [rows["key_end"] for rows, _, _ in blocks]
        return as_array(np.concatenate([[], *ends]).astype(np.int64), b"".join(text for _, text, _ in blocks))

    def same_samples(self, other: TarIndex) -> bool:
        """Whether both have the same keys with the same members."""
        return (self._length, self._checks) == (other._length, other._checks)

    def __getitem__(self, row: int) -> TarSample:
        """One sample; raises `IndexDoubt` where the file has changed."""
        if not 0 <= row < self._length:
            raise IndexError(f"there is no sample {row}: the shard has {self._length}")
        number, place = divmod(row, _ROWS_IN_BLOCK)
        rows, text, begin = _block(self, number)
        values = rows[place].item()
        first = int(rows[place - 1]["key_end"]) - begin if place else 0
        return TarSample(text[first : values[0] - begin].decode("utf-8"), members_of(values))

    def rely_on(self, path: Path) -> None:
        """Read samples from `path`, which holds this index, and keep it in memory no longer."""
        self.path, self._content = path, b""

    def checked_block(self, number: int) -> tuple[NDArray[Any], bytes, int]:
        """A block's rows and keys, and where in all keys these begin; what differs from what was opened is refused."""
        rows, text = self._read(self._block_places(number))
        if zlib.crc32(text, zlib.crc32(rows)) != self._checks[number]:
            raise IndexDoubt("was changed while it was used")
        return np.frombuffer(rows, ROW), text, self._key_starts[number]

    def _block_places(self, number: int) -> list[tuple[int, int]]:
        """Offset and size of a block's rows, and of its keys."""
        first = number * _ROWS_IN_BLOCK
        count = min(_ROWS_IN_BLOCK, self._length - first)
        start, keys = self._starts
        begin, end = self._key_starts[number : number + 2]
        return [(start + first * ROW.itemsize, count * ROW.itemsize), (keys + begin, end - begin)]

    def _read(self, places: list[tuple[int, int]]) -> list[bytes]:
        if self.path is None:
            return [self._content[offset : offset + size] for offset, size in places]
        try:
            with self.path.open("rb", buffering=0) as file:
                return [read_at(file, offset, size) for offset, size in places]
        except OSError as error:
            raise IndexDoubt(f"cannot be read any more ({error.strerror})") from None


@lru_cache(maxsize=_BLOCKS_HELD)
def _block(index: TarIndex, number: int) -> tuple[NDArray[Any], bytes, int]:
    return index.checked_block(number)


def open_index(tar: File) -> TarIndex:
    """The index of a tar: the one that is kept, where it can be believed, else a new one.

    It lies beside the tar; where that folder cannot be written, in the cache; where neither can, in memory alone.

    Raises:
        InputError: the tar does not exist or cannot be read.
    """
    stamp = Stamp.of(tar)
    doubts = []
    for place in _places(tar):
        try:
            return TarIndex(_content(place, stamp), tar, stamp, place)
        except FileNotFoundError:
            continue
        except IndexDoubt as doubt:
            doubts.append(f"The index {place} {doubt}")
        except OSError as error:
            doubts.append(f"The index {place} cannot be read ({error.strerror})")
    if doubts:
        log.warning("%s: %s is indexed again", doubts[0], tar)
    return new_index(tar)


def new_index(tar: File) -> TarIndex:
    """Go through a tar and keep its index, see `open_index`."""
    stamp = Stamp.of(tar)
    content = build_index(tar, stamp)
    try:
        index = TarIndex(content, tar, stamp, None)
    except IndexDoubt:
        raise InputError(f"{tar} changes while it is read: wait until it is complete, then start again") from None
    for place in _places(tar):
        try:
            write_file(place, content)
        except OSError as error:
            if error.errno not in _CLOSED:
                raise
        else:
            index.rely_on(place)
            return index
    log.warning("The index of %s cannot be saved: it is kept in memory, and every process makes it again", tar)
    return index


def build_index(tar: File, stamp: Stamp) -> bytes:
    """The content of the index file of a tar in the state `stamp`."""
    names: list[str] = []
    found: list[Member | str] = []  # a member, or the name of the one that a link leads to
    damage: tuple[str, str] | None = None
    with tar.open("rb") as headers:
        try:
            for info in members(tar):
                if info.isreg() and not info.issparse():
                    length = info.offset_data - info.offset
                    check = zlib.crc32(read_at(headers, info.offset, length))
                    found.append(Member(info.offset_data, info.size, length, check))
                elif info.islnk() or info.issym():
                    folder = info.name.rpartition("/")[0] if info.issym() else ""
                    found.append(posixpath.normpath(posixpath.join(folder, info.linkname)))
                else:
                    continue
                names.append(info.name)
        except TarEnd as end:
            damage = (end.reason, end.detail)
    samples, twice = _samples(tar, names, found)
    return written(stamp, samples, damage, twice)


def _samples(tar: File, names: list[str], found: list[Member | str]) -> tuple[dict[str, dict[str, Member]], list[int]]:
    """Samples by key, and the numbers of those that repeat a name."""
    at = {posixpath.normpath(name): one for name, one in reversed(list(zip(names, found, strict=True)))}
    samples: dict[str, dict[str, Member]] = {}
    seen: dict[str, int] = {}
    again: set[str] = set()
    lost: list[str] = []
    several: list[str] = []
    places = sample_names(names)
    keys = {place[0] for place in places if place}
    for name, one, place in zip(names, found, places, strict=True):
        if place is None:
            continue
        steps = 0
        target: Member | str | None = one
        while isinstance(target, str) and steps < _MOST_LINKS:
            target, steps = at.get(target), steps + 1
        if not isinstance(target, Member):
            lost.append(name)
            continue
        key, kind = place
        times = seen[name] = seen.get(name, 0) + 1
        if times > 1:
            key = f"{key}#{times}"
            while key in keys:
                key += "#"
            again.add(key)
        elif kind in samples.get(key, ()):
            several.append(name)
        samples.setdefault(key, {}).setdefault(kind, target)
    for left_out, what in ((lost, "links to what the tar does not hold"), (several, "second images of a sample")):
        if left_out:
            log.warning("%s: left out %d %s, first %s.", tar, len(left_out), what, left_out[0])
    return samples, [number for number, key in enumerate(samples) if key in again]


def _places(tar: File) -> Iterator[Path]:
    """Beside the tar, then in the cache; of one elsewhere with what is kept of it."""
    if isinstance(tar, RemoteFile):
        yield tar.folder / "tar.index"
        return
    yield tar.with_name(f"{tar.name}.index")
    digest = hashlib.sha256(str(tar).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    yield cache_folder() / "indices" / f"{digest}.index"


def _content(place: Path, stamp: Stamp) -> bytes:
    status = place.stat()
    # A sample takes a block of the tar at least, and its key stands in there.
    if not stat.S_ISREG(status.st_mode) or status.st_size > 4 * stamp.size + 4096:
        raise IndexDoubt("is not an index")
    return place.read_bytes()
