"""The annotator's memory on disk: a file for each item, safe from kills, other tabs and other processes.

    SET/annotations/ID.json          a `Record`: the decision and its masks, replaced as a whole
    SET/annotations/drafts/ID.json   what was clicked and not accepted yet
    SET/annotations/claims/ID.lock   held by the process whose page shows the item
    SET/annotations/lock             held while a record and what is exported from it are written

A record is on disk (fsync, then rename) when `put` returns. Whoever writes names the version he started from: when
it is not the newest any more, nothing is written and `Changed` tells so.

A set may come from another annotator: its ids are names of files and its folders are no links, or it is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ttd.annotate.records import Record
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.safe_paths import check_name, inside, is_link

_SECONDS_FOR_LOCK = 30.0
_SECONDS_FOR_DRAFT = 60.0


class Changed(InputError):
    """Another tab or process has decided about the item meanwhile; `newest` is its record."""

    def __init__(self, newest: Record) -> None:
        words = ", ".join(newest.true) or "no word"
        super().__init__(
            f"this item was changed in another tab meanwhile ({newest.status}, true: {words}): nothing of yours was "
            "saved; do it again to replace the other, or go on to keep it"
        )
        self.newest = newest


class Unpublished(InputError):
    """The decision (`record`) is safe, but the files that follow from it could not be written."""

    def __init__(self, record: Record, error: OSError | InputError) -> None:
        if isinstance(error, OSError):
            reason, remedy = (error.strerror or str(error)).lower(), "make room"
        else:
            reason, remedy = str(error), "do so"
        super().__init__(
            f"your decision is saved, but the set's other files could not be written ({reason}): {remedy}, and they "
            "are written at the next start"
        )
        self.record = record


@dataclass(frozen=True)
class Stand:
    """What is known of an item without its masks."""

    version: int
    status: str
    verdict: str | None
    finished: bool


class Store:
    """The records of one set.

    Args:
        root: the set's folder; made where it is missing.
        publish: called with every record, inside the lock and before `put` returns: writes what follows from it.

    Raises:
        InputError: the folder holds a TagMask set that was not made here, cannot be written to, or leads elsewhere
            by a symbolic link in it.
    """

    def __init__(self, root: str | Path, publish: Callable[[Record], None] | None = None) -> None:
        self.root = Path(root).absolute()
        self.folder = inside(self.root, "annotations")
        self._publish = publish
        if (self.root / "tags.jsonl").exists() and not self.folder.is_dir():
            raise InputError(f"{root} holds a TagMask set that was not annotated here: choose another folder")
        for name in ("tags.jsonl", "images", "masks"):
            inside(self.root, name)
        try:
            for place in (self.folder, self._drafts, self.claims):
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{root} cannot hold annotations ({(error.strerror or 'error').lower()}): choose another folder"
            ) from None
        self._known: dict[str, tuple[tuple[int, int, int], Stand]] = {}
        with self._locked():
            _sweep(self.root)

    @property
    def claims(self) -> Path:
        """The folder of the claims."""
        return inside(self.root, "annotations", "claims")

    @property
    def _drafts(self) -> Path:
        return inside(self.root, "annotations", "drafts")

    def get(self, identifier: str) -> Record | None:
        """The newest record of an item, None where there is none; raises `InputError` where its file is damaged."""
        path = self._record(identifier)
        try:
            record = Record.from_json(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        if record.id != identifier:
            raise InputError(f"{path} has the id {record.id!r}, which must be the file's name: rename the file")
        return record

    def put(self, record: Record, seen: int, first: Callable[[], None] | None = None) -> Record:
        """Writes a record as the version after `seen` (0: there was none); on disk when it returns.

        Args:
            record: its version and time are set here.
            seen: the version that was looked at.
            first: called inside the lock before the record is written.

        Raises:
            Changed: there is a newer version than `seen`; nothing was written.
            Unpublished: the record is on disk, what follows from it is not.
            OSError: the disk is full or the like; the item is as it was.
        """
        with self._locked():
            newest = self.get(record.id)
            if newest is not None and newest.version != seen:
                raise Changed(newest)
            seen = newest.version if newest is not None else 0
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            record = replace(record, version=seen + 1, time=now)
            if first is not None:
                first()
            with whole_file(self._record(record.id)) as part:
                part.write_text(record.to_json(), "utf-8")
            if self._publish is not None:
                try:
                    self._publish(record)
                except (OSError, InputError) as error:
                    raise Unpublished(record, error) from error
        return record

    def stands(self) -> dict[str, Stand]:
        """Where every item stands, by id. Only files that changed since the last call are read again."""
        known: dict[str, tuple[tuple[int, int, int], Stand]] = {}
        for entry in self._entries():
            about = entry.stat(follow_symlinks=False)
            # Every change is a new file, so a reused inode with the same time and size is the only blind spot.
            mark = (about.st_ino, about.st_mtime_ns, about.st_size)
            identifier = entry.name[: -len(".json")]
            before = self._known.get(identifier)
            if before is not None and before[0] == mark:
                known[identifier] = before
            elif (record := self.get(identifier)) is not None:
                known[identifier] = (mark, Stand(record.version, record.status, record.verdict, record.finished))
        self._known = known
        return {identifier: stand for identifier, (_, stand) in known.items()}

    def records(self) -> Iterator[Record]:
        """All records, by id."""
        for identifier in sorted(entry.name[: -len(".json")] for entry in self._entries()):
            if (record := self.get(identifier)) is not None:
                yield record

    def locked(self) -> AbstractContextManager[None]:
        """A block in which nobody else writes to the set."""
        return self._locked()

    def save_draft(self, identifier: str, content: dict[str, Any]) -> None:
        """Keeps what was clicked so far; the last one wins."""
        with whole_file(self._draft(identifier)) as part:
            part.write_text(json.dumps(content), "utf-8")

    def draft(self, identifier: str) -> dict[str, Any] | None:
        """What was clicked before the page was closed; None where there is nothing, or nothing that can be read."""
        try:
            content = json.loads(self._draft(identifier).read_bytes())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def drop_draft(self, identifier: str) -> None:
        """Forgets what was clicked."""
        self._draft(identifier).unlink(missing_ok=True)

    def _record(self, identifier: str) -> Path:
        return inside(self.root, "annotations", f"{check_name(identifier, self.folder)}.json")

    def _draft(self, identifier: str) -> Path:
        return inside(self._drafts, f"{identifier}.json")

    def _entries(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(inside(self.root, "annotations", "lock"))
        try:
            lock.acquire(timeout=_SECONDS_FOR_LOCK)
        except Timeout:
            raise InputError(
                f"another process has been writing to {self.root} for {_SECONDS_FOR_LOCK:.0f} seconds: try again"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _sweep(root: Path) -> None:
    """Removes what killed writers left behind; inside the lock nobody else is writing."""
    masks = root / "masks"
    for folder in (root / "annotations", root, root / "images", masks, *masks.glob("*/")):
        for part in () if is_link(folder) else folder.glob(".*.part"):
            part.unlink(missing_ok=True)
    for part in (root / "annotations" / "drafts").glob(".*.part"):
        # Drafts are written without the lock, within milliseconds.
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _SECONDS_FOR_DRAFT:
                part.unlink()
