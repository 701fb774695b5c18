"""The annotations on disk: a file for each item, safe from kills, other tabs and other processes.

    SET/annotations/ID.json          a `Record`: the decision and its masks, replaced as a whole
    SET/annotations/drafts/ID.json   what was clicked and not accepted yet
    SET/annotations/claims/ID.lock   held by the process whose page shows the item
    SET/annotations/lock             held while a record and what is exported from it are written

A record is on disk (fsync, then rename) when `put` returns. A writer passes the version it started from: when that is
not the newest any more, nothing is written and `RecordChanged` is raised.

A set may come from another annotator: it is refused where an id is not a plain file name or a folder is a link.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ttd.annotate.records import SKIPPED, Record
from ttd.errors import InputError
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.safe_paths import check_name, inside, is_link
from ttd.files.schema import count, each, fields, mapping, optional, text

_DRAFT = fields(
    {},
    {
        "caption": text,
        "base_version": count,
        "true": each(text),
        "active": optional(text),
        "prompts": mapping(mapping()),
    },
)
_LOCK_SECONDS = 30.0
_DRAFT_SECONDS = 60.0


class RecordChanged(InputError):
    """The item was decided in another tab or process in between; `newest` is that record."""

    def __init__(self, newest: Record) -> None:
        words = ", ".join(newest.true) or "no word"
        super().__init__(
            f"this item was changed in another tab ({newest.status}, true: {words}): nothing of yours was "
            "saved; do it again to replace the other decision, or go on to leave it"
        )
        self.newest = newest


class ExportFailed(InputError):
    """The decision (`record`) is on disk, but the files exported from it could not be written."""

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


class AnnotationStore:
    """The records of one set.

    Args:
        root: the set's folder; made where it is missing.
        export: writes the files that follow from a record; called inside the lock, before `put` returns.

    Raises:
        InputError: the folder holds a TagMask set that was not annotated here, cannot be written to, or contains a
            symbolic link in the place of a folder or file of the set.
    """

    def __init__(self, root: str | Path, export: Callable[[Record], None] | None = None) -> None:
        self.root = Path(root).absolute()
        self.folder = inside(self.root, "annotations")
        self._export = export
        if (self.root / "tags.jsonl").exists() and not self.folder.is_dir():
            raise InputError(f"{root} holds a TagMask set that was not annotated here: choose another folder")
        for name in ("tags.jsonl", "images", "masks"):
            inside(self.root, name)
        try:
            for folder in (self.folder, self._drafts, self.claims):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{root} cannot hold annotations ({(error.strerror or 'error').lower()}): choose another folder"
            ) from None
        self._cached: dict[str, tuple[tuple[int, int, int], Record]] = {}
        with self.locked():
            _remove_leftovers(self.root)

    @property
    def claims(self) -> Path:
        """The folder of the claims."""
        return inside(self.root, "annotations", "claims")

    @property
    def _drafts(self) -> Path:
        return inside(self.root, "annotations", "drafts")

    def get(self, identifier: str) -> Record | None:
        """The newest record of an item, None where there is none; raises `InputError` for a damaged file."""
        path = self._record(identifier)
        try:
            record = Record.from_json(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        if record.id != identifier:
            raise InputError(f"{path} has the id {record.id!r}, which must be the file's name: rename the file")
        return record

    def put(self, record: Record, base_version: int, before: Callable[[], None] | None = None) -> Record:
        """Writes a record as the version after `base_version`; on disk when it returns.

        Args:
            record: its version and time are set here.
            base_version: the version that was changed; 0: there was no record.
            before: called inside the lock before the record is written.

        Raises:
            RecordChanged: there is a newer version than `base_version`; nothing was written.
            ExportFailed: the record is on disk, the files exported from it are not.
            OSError: the record could not be written; the item is unchanged.
        """
        with self.locked():
            newest = self.get(record.id)
            if newest is not None and newest.version != base_version:
                raise RecordChanged(newest)
            version = newest.version + 1 if newest is not None else 1
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            record = replace(record, version=version, time=now)
            if before is not None:
                before()
            write_file(self._record(record.id), record.to_json())
            if self._export is not None:
                try:
                    self._export(record)
                except (OSError, InputError) as error:
                    raise ExportFailed(record, error) from error
        return record

    def remove(self, identifier: str, base_version: int) -> None:
        """Removes a record and what was exported from it; raises `RecordChanged` as `put`."""
        with self.locked():
            newest = self.get(identifier)
            if newest is None:
                return
            if newest.version != base_version:
                raise RecordChanged(newest)
            if self._export is not None:
                # First, so that a kill in between leaves a record whose files are written again at the next start.
                self._export(replace(newest, status=SKIPPED, verdict=None))
            self._record(identifier).unlink()

    def summaries(self) -> dict[str, Record]:
        """All records without masks and prompts, by id. Only files that changed since the last call are read again."""
        known: dict[str, tuple[tuple[int, int, int], Record]] = {}
        for entry in self._entries():
            stat = entry.stat(follow_symlinks=False)
            # Every change makes a new file; only a reused inode with the same time and size would go unnoticed.
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            identifier = entry.name[: -len(".json")]
            before = self._cached.get(identifier)
            if before is not None and before[0] == stamp:
                known[identifier] = before
            elif (record := self.get(identifier)) is not None:
                known[identifier] = (stamp, replace(record, masks={}, prompts={}))
        self._cached = known
        return {identifier: summary for identifier, (_, summary) in known.items()}

    def records(self) -> Iterator[Record]:
        """All records, by id."""
        for identifier in sorted(entry.name[: -len(".json")] for entry in self._entries()):
            if (record := self.get(identifier)) is not None:
                yield record

    def save_draft(self, identifier: str, content: dict[str, Any]) -> None:
        """Writes what was clicked so far; the last draft replaces earlier ones."""
        write_file(self._draft(identifier), json.dumps(content))

    def draft(self, identifier: str) -> dict[str, Any] | None:
        """The draft of an item; None where there is none, or it cannot be read."""
        path = self._draft(identifier)
        try:
            content: dict[str, Any] = read_json(path, _DRAFT)
        except (OSError, InputError):
            return None
        return content

    def delete_draft(self, identifier: str) -> None:
        """Deletes the draft of an item, where there is one."""
        self._draft(identifier).unlink(missing_ok=True)

    def _record(self, identifier: str) -> Path:
        return inside(self.root, "annotations", f"{check_name(identifier, self.folder)}.json")

    def _draft(self, identifier: str) -> Path:
        return inside(self._drafts, f"{identifier}.json")

    def _entries(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            return [entry for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A block in which no other thread or process writes to the set."""
        lock = FileLock(inside(self.root, "annotations", "lock"))
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            raise InputError(
                f"another process has been writing to {self.root} for {_LOCK_SECONDS:.0f} seconds: try again"
            ) from None
        try:
            yield
        finally:
            lock.release()


def _remove_leftovers(root: Path) -> None:
    """Removes the partial files of killed writers; call it inside the lock, when no record is being written."""
    masks = root / "masks"
    for folder in (root / "annotations", root, root / "images", masks, *masks.glob("*/")):
        for part in () if is_link(folder) else folder.glob(".*.part"):
            part.unlink(missing_ok=True)
    for part in (root / "annotations" / "drafts").glob(".*.part"):
        # Drafts are written without the lock but within milliseconds: younger files may still be in use.
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _DRAFT_SECONDS:
                part.unlink()
