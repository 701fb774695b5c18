"""The measurements of a run that several processes share: one file each, read as one.

Process r of w measures every w-th item and appends to a file of its own; it never talks to the others, so
they may run on many machines over one folder. Whatever was measured before counts, by however many processes.
Each notes in a file that it has ended and what it skipped; the one that finds all these notes takes them away
and adds up, so exactly one does, and none waits for another that may have died.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ttd.atomic import whole_file
from ttd.errors import InputError

Skipped = tuple[str, str]  # id and reason


def share_name(rank: int = 0, world: int = 1) -> str:
    """The file of one process among `world`."""
    return "measurements.jsonl" if world == 1 else f"measurements.{rank}-of-{world}.jsonl"


class Shares:
    """All measurements in a folder, and this process's part in making them.

    Args:
        folder: the run's.
        rank, world: which of how many processes this is.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.folder, self.rank, self.world = folder, rank, world

    def begin(self, ids: Sequence[str]) -> tuple[list[int], int]:
        """The numbers of this process's items that nobody has measured yet, and how many items are its own."""
        self._note(self.rank).unlink(missing_ok=True)
        known = self._places()
        mine = range(self.rank, len(ids), self.world)
        return [number for number in mine if ids[number] not in known], len(mine)

    def end(self, ids: Sequence[str], skipped: Sequence[Skipped]) -> list[Skipped] | None:
        """Notes that this process has done its part, having skipped `skipped`.

        Returns:
            what all of them skipped, in the order of `ids`; None where another is still at work or adds up.
        """
        with whole_file(self._note(self.rank)) as part:
            part.write_text(json.dumps(skipped), "utf-8")
        notes = [self._note(rank) for rank in range(self.world)]
        try:
            reasons = {name: reason for note in notes for name, reason in json.loads(note.read_text("utf-8"))}
        except FileNotFoundError:
            return None
        known = self._places()
        if any(name not in known and name not in reasons for name in ids):
            return None  # the note of an earlier, killed run: its process has only just started again
        try:
            notes[0].unlink()  # which only one process can
        except FileNotFoundError:
            return None
        for note in notes[1:]:
            note.unlink(missing_ok=True)
        return [(name, reasons[name]) for name in ids if name in reasons and name not in known]

    def records(self, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The measurements of `ids`, in their order, whatever the files' order: a sum of shares depends on it."""
        places = self._places()
        streams = {path: path.open("rb") for path in {path for path, _ in places.values()}}
        try:
            for name in ids:
                if name in places:
                    path, start = places[name]
                    streams[path].seek(start)
                    yield json.loads(streams[path].readline())
        finally:
            for stream in streams.values():
                stream.close()

    def _places(self) -> dict[str, tuple[Path, int]]:
        """File and offset of each item's line; a last line that is being written does not count."""
        places: dict[str, tuple[Path, int]] = {}
        for path in sorted(self.folder.glob("measurements*.jsonl")):
            start = 0
            with path.open("rb") as stream:
                for line in stream:
                    if line.endswith(b"\n"):
                        places.setdefault(_id(line, path), (path, start))
                    start += len(line)
        return places

    def _note(self, rank: int) -> Path:
        return self.folder / f"ended.{rank}-of-{self.world}.json"


def _id(line: bytes, path: Path) -> str:
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged in the middle; remove it, and its items are measured again") from None
