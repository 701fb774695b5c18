"""Tar shards with random access, by an index of their members' places (`ttd.data.tar_index`).

A sample is what shares the member name up to the first dot of its last part, as webdataset has it, or up to the last
where names have dots of their own (`ttd.data.tar_index_file`): an image and a .txt or .json with its caption. Other
members are left alone.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa

from ttd.data.bad_samples import MISSING_CAPTION, MISSING_IMAGE, TRUNCATED, TWICE, UNREADABLE, BadSample
from ttd.data.remote import File, Vanished
from ttd.data.shard import CAPTION_NAMES, MOST_BYTES, NoCaption, from_json, from_text, shard_name
from ttd.data.tar_index import TarIndex, new_index, open_index
from ttd.data.tar_index_file import IndexDoubt, Member
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit

log = logging.getLogger(__name__)
T = TypeVar("T")


class TarShard:
    """See `ttd.data.shard.Shard`. Holds no open file: it may be shared by threads and processes."""

    def __init__(self, path: File) -> None:
        self.path = path
        self.name = shard_name(path)
        self._index = open_index(path)
        self.size = self._index.stamp.size
        ending = self._index.damage
        self.damage = BadSample(ending[0], self.name, "", ending[1]) if ending else None

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        return len(self._index)

    def keys(self) -> pa.Array:
        """All keys, in order."""
        return self._indexed(TarIndex.keys)

    def key(self, row: int) -> str:
        """One key."""
        return self._indexed(lambda index: index[row].key)

    def captions(self, row: int) -> tuple[str, ...]:
        """The .json's "captions" where it lists them, else the .txt, else the .json's caption."""
        try:
            return self._captions(row)
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self.key(row), error.detail) from None

    def file(self, row: int) -> None:
        """None: images are in the tar."""

    def image_bytes(self, row: int) -> bytes:
        """The encoded image."""
        data = self._member(row, "image")
        if not data:
            raise BadSample(MISSING_IMAGE, self.name, self.key(row))
        return data

    def record(self, row: int) -> dict[str, Any]:
        """The .json, where it is an object."""
        try:
            record = parse_json(self._member(row, "json") or b"{}", nan=True)
        except (BadSample, Misfit):
            return {}
        return record if isinstance(record, dict) else {}

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The .json's "tags": a list of words for every caption."""
        tags: Any = self.record(row).get("tags")
        captions = self.captions(row)
        if not are_tags(tags) or len(tags) != len(captions):
            raise InputError(
                f"pair {self.key(row)!r} of {self.name} has no words for its {len(captions)} captions: make shards "
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
        sample = self._indexed(lambda index: index[row])
        if row in self._index.twice:
            raise BadSample(TWICE, self.name, sample.key, "the tar has a member of this name before, which counts")
        member = sample.members.get(kind)
        if member is None:
            return None
        if member.header + member.size > MOST_BYTES:
            raise BadSample(UNREADABLE, self.name, sample.key, f"a member of {member.size:,} bytes")
        try:
            header, data = self._bytes(member)
        except Vanished as gone:
            raise BadSample(gone.reason, self.name, sample.key, gone.detail) from None
        if len(header) < member.header or len(data) < member.size:
            raise BadSample(TRUNCATED, self.name, sample.key)
        if zlib.crc32(header) != member.check:
            self._go_through_again("does not fit what the tar holds")
            raise BadSample(UNREADABLE, self.name, sample.key, "its header changes from one reading to the next")
        return data

    def _bytes(self, member: Member) -> tuple[bytes, bytes]:
        with self.path.open("rb") as file:
            file.seek(member.offset - member.header)
            return file.read(member.header), file.read(member.size)

    def _indexed(self, ask: Callable[[TarIndex], T]) -> T:
        """An answer of the index, which is made again where its file was damaged since it was opened."""
        try:
            return ask(self._index)
        except IndexDoubt as doubt:
            self._go_through_again(str(doubt))
            return ask(self._index)

    def _go_through_again(self, doubt: str) -> None:
        log.warning("The index of %s %s: it is made again", self.path, doubt)
        again = new_index(self.path)
        if not again.same_samples(self._index):
            raise InputError(f"{self.path} was changed during the run: start again")
        self._index = again


def are_tags(tags: Any) -> bool:
    """Whether it is a list of lists of texts."""
    return isinstance(tags, list) and all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in tags
    )
