"""Going through a tar: its members, what they are to a sample, and the place where it ends too early."""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ttd.data.bad_samples import TRUNCATED, UNREADABLE
from ttd.data.listing import image_endings
from ttd.data.remote import File

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
    """Of each member's name the key of its sample and one of `KINDS`; None for what is no part of a sample.

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
