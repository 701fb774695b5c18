"""The members of a tar, and the file `NAME.tar.index` that lists them.

The file is a line with the format and the SHA-256 of all that follows; a line of JSON about the tar; one row of fixed
length per sample; the keys, one after the other.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ttd.data.bad_samples import REASONS, TRUNCATED, UNREADABLE
from ttd.data.listing import image_endings
from ttd.data.remote import File, RemoteFile
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit, fields

KINDS = ("image", "text", "json")
BLOCK = tarfile.BLOCKSIZE
MOST_BYTES = 1 << 62  # that a member may claim


class TarEnd(Exception):
    """Here a tar ends too early, or cannot be read on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def members(path: File) -> Iterator[tarfile.TarInfo]:
    """All members in order, also of tars that were put one after the other into one file (`cat a.tar b.tar`).

    Raises:
        TarEnd: at the place where the tar ends too early or cannot be read on.
    """
    with path.open("rb") as file:
        start: int | None = 0
        while start is not None:
            file.seek(start)
            yield from _members(file)
            start = _next_tar(file)


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of the tar that begins where `file` is; leaves `file` at its end mark."""
    last = -1
    try:
        # The names' encoding is no matter of the machine's language.
        tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8")  # noqa: SIM115 (owns nothing but `file`)
        while (member := tar.next()) is not None:
            if tar.offset <= last or not 0 <= member.size <= MOST_BYTES:
                raise tarfile.ReadError("a size is negative or too large")
            last = tar.offset
            tar.members.clear()  # type: ignore[attr-defined]
            yield member
    # Broken headers raise anything: ReadError, ValueError, UnicodeDecodeError, OverflowError ...
    except (tarfile.TarError, ValueError, EOFError, IndexError, OverflowError) as error:
        reason = UNREADABLE if last < 0 else TRUNCATED
        raise TarEnd(reason, str(error)[:100]) from None
    # tarfile stops without a word at a broken header and at a missing end mark.
    file.seek(tar.offset)
    if file.read(BLOCK) != bytes(BLOCK):
        raise TarEnd(TRUNCATED, f"no end mark at byte {tar.offset:,}")


def _next_tar(file: BinaryIO) -> int | None:
    """Where another tar begins after an end mark; None where only zeros follow."""
    while block := file.read(1 << 16):
        if block.count(0) < len(block):
            zeros = len(block) - len(block.lstrip(b"\0"))
            return file.tell() - len(block) + zeros // BLOCK * BLOCK
    return None


def sample_names(names: Sequence[str]) -> list[tuple[str, str] | None]:
    """Of each member's name the key of its sample and one of `KINDS`; None for what is not part of a sample.

    As webdataset has it, a key ends at the first dot of a name's last part, and "1.seg.png" beside "1.png" is something
    else about sample "1". Names that have dots of their own ("IMG.2021.05.png", "crop_1.0.png") end at their last dot:
    where the first dot leads to no sample, or where a caption goes by the same longer name.
    """
    short = [_key_and_kind(name, first=True) for name in names]
    long = [None if found else _key_and_kind(name, first=False) for name, found in zip(names, short, strict=True)]
    plain = {found[0] for found in short if found}
    dotted: defaultdict[str, set[str]] = defaultdict(set)
    for found in filter(None, long):
        dotted[found[0]].add(found[1])
    found_names: list[tuple[str, str] | None] = []
    for by_first, by_last in zip(short, long, strict=True):
        if by_last is not None:
            kinds = dotted[by_last[0]]
            folder, slash, base = by_last[0].rpartition("/")
            alone = f"{folder}{slash}{base.partition('.')[0]}" not in plain
            known = (alone and kinds != {"json"}) or {"image", "text"} <= kinds
            by_last = by_last if known else None
        found_names.append(by_first or by_last)
    return found_names


def _key_and_kind(name: str, *, first: bool) -> tuple[str, str] | None:
    """Key and kind of a name that is parted at the first or the last dot of its last part."""
    # A name in another encoding stays usable as a key, with replacement marks.
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".") if first else base.rpartition(".")
    suffix = suffix.lower()
    kind = {"txt": "text", "json": "json"}.get(suffix) or ("image" if f".{suffix}" in image_endings() else "")
    return (f"{folder}{slash}{stem}", kind) if kind and stem and not base.startswith(".") else None


_FIRST_LINE = b"ttd tar index 3 "
# Of each kind: where the data begin and their bytes, both -1 for none; the bytes of header before them, and the
# CRC-32 of those, by which a member is recognised when it is read.
_MEMBER = (("offset", "<i8"), ("size", "<i8"), ("header", "<u4"), ("check", "<u4"))
ROW = np.dtype([("key_end", "<i8"), *((f"{kind}_{part}", form) for kind in KINDS for part, form in _MEMBER)])
_NONE = (-1, -1, 0, 0)
_LOOKED_AT = 8  # samples whose headers are compared with the tar when an index is opened


class IndexDoubt(Exception):
    """An index that must not be believed; the text ends the sentence "The index X ..."."""


@dataclass(frozen=True)
class Stamp:
    """State of a tar: bytes, and when its content and its file were changed, in ns. Copies have another `changed`."""

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, path: File) -> Stamp:
        """Of a file; `InputError` where there is none. Of one elsewhere it is the same on every machine."""
        if isinstance(path, RemoteFile):
            size, state = path.state
            return cls(size, int(state[:15], 16), 0)
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from None
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Member:
    """A file in a tar: `size` bytes from `offset`, with `header` bytes before it whose CRC-32 is `check`."""

    offset: int
    size: int
    header: int
    check: int


@dataclass(frozen=True)
class Opened:
    """What an index file says, checked.

    Attributes:
        rows: `[N]` of `ROW`.
        keys: UTF-8, all keys one after the other; `key_end` of a row tells where its key ends.
        start: where in the file the rows begin.
        damage: reason and detail where the tar ends too early or is none.
        twice: numbers of the samples that repeat the name of an earlier one.
    """

    rows: NDArray[Any]
    keys: memoryview
    start: int
    damage: tuple[str, str] | None
    twice: frozenset[int]


def written(
    stamp: Stamp,
    samples: Mapping[str, Mapping[str, Member]],
    damage: tuple[str, str] | None,
    twice: Sequence[int] = (),
) -> bytes:
    """The file's content: for each key its members by kind."""
    keys = [key.encode("utf-8") for key in samples]
    rows = np.zeros(len(samples), ROW)
    rows["key_end"] = np.cumsum([len(key) for key in keys], dtype=np.int64)
    for kind in KINDS:
        found = [sample.get(kind) for sample in samples.values()]
        values = [_NONE if m is None else (m.offset, m.size, m.header, m.check) for m in found]
        for (part, _), column in zip(_MEMBER, zip(*values, strict=True), strict=False):
            rows[f"{kind}_{part}"] = column
    about = {**vars(stamp), "samples": len(samples), "damage": damage, "twice": list(twice)}
    body = json.dumps(about).encode() + b"\n" + rows.tobytes() + b"".join(keys)
    return _FIRST_LINE + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def opened(content: bytes, tar: File, stamp: Stamp) -> Opened:
    """Take a file apart; `IndexDoubt` where it is damaged, impossible, or was made for another tar or state of it."""
    about, start = _about(content)
    if any(about.get(name) != value for name, value in vars(stamp).items()):
        raise IndexDoubt("was made for another state or copy of the tar")
    samples, damage = about.get("samples"), about.get("damage")
    if type(samples) is not int or samples < 0:
        raise IndexDoubt("has another number of samples than recorded")
    if damage is not None and not _is_damage(damage):
        raise IndexDoubt("describes an impossible tar")
    twice = about.get("twice")
    if not isinstance(twice, list) or not all(type(number) is int and 0 <= number < samples for number in twice):
        raise IndexDoubt("names impossible samples")
    end = start + samples * ROW.itemsize
    if end > len(content):
        raise IndexDoubt("has another number of samples than recorded")
    rows: NDArray[Any] = np.frombuffer(content, ROW, samples, start)
    keys = memoryview(content)[end:]
    _check_rows(rows, stamp, damage is not None)
    _check_keys(rows["key_end"], keys)
    if not isinstance(tar, RemoteFile):  # where each look costs a block, and the stamp knows the content
        _compare_headers(rows, tar)
    return Opened(rows, keys, start, tuple(damage) if damage else None, frozenset(twice))


def members_of(values: tuple[int, ...]) -> dict[str, Member]:
    """The members of a row, by kind."""
    found = (Member(*values[place : place + len(_MEMBER)]) for place in range(1, len(values), len(_MEMBER)))
    return {kind: member for kind, member in zip(KINDS, found, strict=True) if member.offset >= 0}


def as_array(ends: NDArray[np.int64], text: bytes | memoryview) -> pa.Array:
    """Keys, one after the other, as an array of strings."""
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.large_string(), len(ends), buffers).cast(pa.string())


def read_at(file: Any, offset: int, size: int) -> bytes:
    """The bytes of an open file from `offset`, fewer where it ends."""
    file.seek(offset)
    data: bytes = file.read(size)
    return data


def _about(content: bytes) -> tuple[dict[str, Any], int]:
    """What the file says about its tar, and where the rows begin."""
    first, _, _ = content[:256].partition(b"\n")
    begin = len(first) + 1
    if not first.startswith(_FIRST_LINE):
        raise IndexDoubt("is damaged or was written by another version of ttd")
    if first[len(_FIRST_LINE) :] != hashlib.sha256(memoryview(content)[begin:]).hexdigest().encode():
        raise IndexDoubt("is damaged")
    end = content.find(b"\n", begin)
    try:
        about: dict[str, Any] = parse_json(content[begin : max(end, begin)], fields({}))
    except Misfit:
        raise IndexDoubt("is damaged") from None
    return about, end + 1


def _is_damage(value: Any) -> bool:
    texts = isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
    return texts and value[0] in REASONS


def _check_rows(rows: NDArray[Any], stamp: Stamp, damaged: bool) -> None:
    """Every member is possible: aligned, inside of the tar, and none lies in another; links name one several times."""
    offset, size, header, check = (np.concatenate([rows[f"{kind}_{part}"] for kind in KINDS]) for part, _ in _MEMBER)
    there = offset >= 0
    absent = (offset & size) == -1
    absent &= (header | check) == 0
    if not (there | absent).all() or not there.reshape(len(KINDS), -1).any(axis=0).all():
        raise IndexDoubt("has an impossible sample")
    offset, size, header = offset[there], size[there], header[there].astype(np.int64)
    begin, end = offset - header, offset + size
    order = np.argsort(begin, kind="stable")
    same = (np.diff(begin[order]) == 0) & (np.diff(end[order]) == 0)
    possible = (
        not ((offset | header) & (BLOCK - 1)).any()
        and bool((begin >= 0).all() and (header > 0).all() and (offset <= stamp.size).all())
        and bool(
            (size >= 0).all() and (size <= MOST_BYTES).all() and ((begin[order][1:] >= end[order][:-1]) | same).all()
        )
        # In a tar that is cut off the last member may go beyond the end; reading it tells.
        and bool(damaged or (end <= stamp.size).all())
    )
    if not possible:
        raise IndexDoubt("names impossible members")


def _check_keys(ends: NDArray[np.int64], text: memoryview) -> None:
    if (np.diff(ends, prepend=0) <= 0).any() or (ends[-1] if len(ends) else 0) != len(text):
        raise IndexDoubt("has keys of a wrong length")
    try:
        keys = as_array(ends, text)
        keys.validate(full=True)
    except pa.ArrowException:
        raise IndexDoubt("has keys that are not text") from None
    if pc.count_distinct(keys).as_py() != len(keys):
        raise IndexDoubt("names a sample twice")


def _compare_headers(rows: NDArray[Any], tar: Path) -> None:
    """A few members, evenly from the first to the last sample, have the headers that the index knows."""
    chosen = {(len(rows) - 1) * step // (_LOOKED_AT - 1) for step in range(_LOOKED_AT)} if len(rows) else set()
    with tar.open("rb", buffering=0) as file:
        for row in sorted(chosen):
            for member in members_of(rows[row].item()).values():
                if zlib.crc32(read_at(file, member.offset - member.header, member.header)) != member.check:
                    raise IndexDoubt("was made for another tar")
