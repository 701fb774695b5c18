"""Going through a tar: its members with what they are to a sample, and the place where it ends too early."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from ttd.data.bad_samples import TRUNCATED, UNREADABLE

IMAGES = ("jpg", "jpeg", "png", "webp")
KINDS = ("image", "text", "json")
BLOCK = tarfile.BLOCKSIZE
MOST_BYTES = 1 << 62  # that a member may claim


class TarEnd(Exception):
    """Here a tar ends too early, or cannot be read on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def members(path: Path) -> Iterator[tarfile.TarInfo]:
    """All members in order; `TarEnd` at the place where the tar ends too early or cannot be read on."""
    with path.open("rb") as file:
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


def key_and_kind(name: str) -> tuple[str, str]:
    """Of a member's name: the key of its sample, and one of `KINDS`, "" for what is none of them."""
    # A name in another encoding stays usable as a key, with replacement marks.
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = suffix.lower()
    kind = "image" if suffix in IMAGES else {"txt": "text", "json": "json"}.get(suffix, "")
    return f"{folder}{slash}{stem}", kind if stem else ""
