"""Tar shards with random access: each is indexed once, the index is kept beside it.

A sample is what shares the member name up to the first dot of its last part, as webdataset has it: an image
(.jpg .jpeg .png .webp) and a .txt or .json with its caption. Other members are left alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ttd.data.bad_samples import MISSING_CAPTION, MISSING_IMAGE, TRUNCATED, UNREADABLE, BadSample
from ttd.data.captions import CAPTION_NAMES, NoCaption, from_json, from_text
from ttd.encoders.loading.downloads import cache_folder
from ttd.errors import InputError
from ttd.files import whole_file

IMAGES = ("jpg", "jpeg", "png", "webp")
MOST_BYTES = 1 << 28  # of one member, so that a broken size cannot exhaust the memory

_FORMAT = 1
_COLUMNS = ("image_offset", "image_size", "text_offset", "text_size", "json_offset", "json_size")
_INDICES_HELD = 128
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_BLOCK = tarfile.BLOCKSIZE


class Shard(Protocol):
    """A numbered set of pairs on disk.

    Attributes:
        name: folder and file name, the same wherever the folder lies.
        path: the file.
        size: bytes of the file.
        damage: what is wrong with the shard itself, None where nothing is.
    """

    name: str
    path: Path
    size: int
    damage: BadSample | None

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        ...

    def keys(self) -> pa.Array:
        """All keys, in order."""
        ...

    def key(self, row: int) -> str:
        """One key."""
        ...

    def captions(self, row: int) -> tuple[str, ...]:
        """At least one caption, or `BadSample`."""
        ...

    def image_bytes(self, row: int) -> bytes:
        """The encoded image, or `BadSample`."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """What else is known of the pair, by name; empty where that is nothing."""
        ...

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The words that the pair carries for each of its captions; `InputError` where it carries none."""
        ...


@dataclass(frozen=True)
class _Index:
    table: pa.Table
    about: dict[str, Any]


class TarShard:
    """See `Shard`. Holds no open file: it may be shared by threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = shard_name(path)
        self.size, self._mtime = _stamp(path)
        if self._read_index() is None:
            self._build_index()
        index = self._index()
        self._length = int(index.table.num_rows)
        ending = index.about["damage"]
        self.damage = BadSample(ending[0], self.name, "", ending[1]) if ending else None

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        return self._length

    def keys(self) -> pa.Array:
        """All keys, in order."""
        return self._index().table["key"].combine_chunks()

    def key(self, row: int) -> str:
        """One key."""
        return str(self._index().table["key"][row].as_py())

    def captions(self, row: int) -> tuple[str, ...]:
        """The .json's "captions" where it lists them, else the .txt, else the .json's caption."""
        try:
            return self._captions(row)
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self.key(row), error.detail) from None

    def image_bytes(self, row: int) -> bytes:
        """The encoded image."""
        data = self._member(row, "image")
        if not data:
            raise BadSample(MISSING_IMAGE, self.name, self.key(row))
        return data

    def record(self, row: int) -> dict[str, Any]:
        """The .json, where it is an object."""
        try:
            record = json.loads((self._member(row, "json") or b"{}").decode("utf-8-sig"))
        except (BadSample, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The .json's "tags": a list of words for every caption."""
        tags: Any = self.record(row).get("tags")
        captions = self.captions(row)
        if not _are_tags(tags) or len(tags) != len(captions):
            raise InputError(
                f"pair {self.key(row)!r} of {self.name} carries no words for its {len(captions)} captions: make shards "
                "with ttd data tag --shards, or name a file or folder of words with --tags"
            )
        return tuple(tuple(words) for words in tags)

    def _captions(self, row: int) -> tuple[str, ...]:
        text = self._member(row, "text")
        try:
            record = self._member(row, "json")
            if text is None and record is None:
                raise NoCaption(MISSING_CAPTION)
            if record is not None:
                return from_json(record, CAPTION_NAMES if text is None else CAPTION_NAMES[:1])
        except (NoCaption, BadSample):
            if text is None:
                raise
        assert text is not None
        return from_text(text)

    def _member(self, row: int, kind: str) -> bytes | None:
        """A member's bytes, None where the sample has no such member."""
        table = self._index().table
        offset, size = table[f"{kind}_offset"][row].as_py(), table[f"{kind}_size"][row].as_py()
        if offset < 0:
            return None
        if size > MOST_BYTES:
            raise BadSample(UNREADABLE, self.name, self.key(row), f"a member of {size:,} bytes")
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise BadSample(TRUNCATED, self.name, self.key(row))
        return data

    def _index(self) -> _Index:
        index = self._read_index()
        if index is None:
            raise InputError(f"the index of {self.path} was removed or changed while it was used: start again")
        return index

    def _read_index(self) -> _Index | None:
        """The index that belongs to a tar of this size and time, None where there is none."""
        for place in self._places():
            try:
                index = _open_index(place, _stamp(place))
            except InputError:
                continue
            if index and (index.about["size"], index.about["mtime"]) == (self.size, self._mtime):
                return index
        return None

    def _build_index(self) -> None:
        table = build_index(self.path, self.size, self._mtime)
        beside, cached = self._places()
        try:
            _write_index(table, beside)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            _write_index(table, cached)

    def _places(self) -> tuple[Path, Path]:
        """Beside the shard; for folders that cannot be written, in the cache."""
        digest = hashlib.sha256(str(self.path).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.path.with_name(f"{self.path.name}.index"), cache_folder() / "indices" / f"{digest}.index"


def _are_tags(tags: Any) -> bool:
    """Whether it is a list of lists of texts."""
    return isinstance(tags, list) and all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in tags
    )


def shard_name(path: Path) -> str:
    """The folder's name and the file's: what score files, keep-lists and reports call a shard."""
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def build_index(path: Path, size: int, mtime: int) -> pa.Table:
    """Go through a tar once and note where each sample's members lie.

    Args:
        path: the tar.
        size, mtime: bytes and modification time in ns, by which the index is recognised later.

    Returns:
        one row per sample: `key`, and `*_offset`, `*_size` in bytes of image, text, json; -1 where missing.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    damage: tuple[str, str] | None = None
    try:
        for member in _members(path):
            key, kind = _key_and_kind(member.name)
            if kind and member.isreg() and not member.issparse():
                samples.setdefault(key, {})[kind] = (member.offset_data, member.size)
    except BadSample as error:
        damage = (error.reason, error.detail)
    columns: dict[str, Any] = {"key": pa.array(samples, pa.string())}
    for name in _COLUMNS:
        kind, _, part = name.partition("_")
        columns[name] = pa.array(
            [sample.get(kind, (-1, -1))[part == "size"] for sample in samples.values()], pa.int64()
        )
    about = {"format": _FORMAT, "size": size, "mtime": mtime, "damage": damage}
    return pa.table(columns).replace_schema_metadata({"ttd": json.dumps(about)})


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """All members; `BadSample` at the place where the tar ends too early or cannot be read on."""
    name = shard_name(path)
    with path.open("rb") as file:
        last = -1
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (owns nothing but `file`)
            while (member := tar.next()) is not None:
                if tar.offset <= last or member.size < 0:
                    raise tarfile.ReadError("a size is negative")
                last = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]
                yield member
        # Broken headers raise anything: ReadError, ValueError, UnicodeDecodeError, OverflowError ...
        except (tarfile.TarError, ValueError, EOFError, IndexError, OverflowError) as error:
            reason = UNREADABLE if last < 0 else TRUNCATED
            raise BadSample(reason, name, "", str(error)[:100]) from None
        # tarfile stops without a word at a broken header and at a missing end mark.
        file.seek(tar.offset)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise BadSample(TRUNCATED, name, "", f"no end mark at byte {tar.offset:,}")


def _key_and_kind(name: str) -> tuple[str, str]:
    # A name in another encoding stays usable as a key, with replacement marks.
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = suffix.lower()
    kind = "image" if suffix in IMAGES else {"txt": "text", "json": "json"}.get(suffix, "")
    return f"{folder}{slash}{stem}", kind if stem else ""


def _write_index(table: pa.Table, place: Path) -> None:
    with whole_file(place) as part, pa.ipc.new_file(str(part), table.schema) as writer:
        writer.write_table(table)


@lru_cache(maxsize=_INDICES_HELD)
def _open_index(place: Path, _stamp: tuple[int, int]) -> _Index | None:
    """The memory-mapped index, None where it is damaged."""
    try:
        with pa.memory_map(str(place)) as source:
            table = pa.ipc.open_file(source).read_all()
        about = json.loads(table.schema.metadata[b"ttd"])
        known = table.column_names == ["key", *_COLUMNS] and about["format"] == _FORMAT
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError):
        return None
    return _Index(table, about) if known else None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from None
    return status.st_size, status.st_mtime_ns
