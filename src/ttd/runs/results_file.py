"""Files with one line per finished item, from which an interrupted run continues, also of several processes."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ttd.errors import InputError
from ttd.files import whole_file, write_file
from ttd.files.documents import parse_json, read_json, refused
from ttd.files.schema import Misfit, Schema, any_text, anything, each, entries, fields, mapping
from ttd.runs.engine import ALONE, Ranks, Skipped, command, differences, versions

_RUN, _LINE = fields({"settings": mapping()}), fields({"id": any_text})
_NOTE = each(entries(any_text, any_text))
REMEASURE = "remove the file, and its items are done again"


def json_line(record: dict[str, Any]) -> str:
    """`record` as one line; readable where Unicode allows, escaped where a file name is not valid Unicode."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False)
    return text


class ResultsFile:
    """Appends records to a file.

    A run that was killed leaves at most one incomplete last line, which opening cuts off. `settings` are
    kept in `run_path`; where one of the files `beside`, which share it, was made with other settings, that is refused,
    so that results never mix.
    """

    def __init__(self, path: Path, settings: dict[str, Any], run_path: Path, beside: Sequence[Path] = ()) -> None:
        self.path, self.beside, self.run_path = path, beside, run_path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._check_settings(settings)
        self._repair()
        self._stream = path.open("ab", buffering=0)
        self._write_run(settings)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        if not any(path.exists() for path in (self.path, *self.beside)) or not self.run_path.exists():
            return
        before = read_json(self.run_path, _RUN, remedy="choose another --out, or remove it")["settings"]
        if other := differences(before, settings):
            raise InputError(f"{self.path} holds results of another run ({other}); choose another --out or remove it.")

    def _repair(self) -> None:
        """What stands after the last complete line is cut off."""
        if not self.path.exists():
            return
        good = 0
        with self.path.open("rb+") as stream:
            for line in stream:
                if not _is_record(line):
                    break
                good += len(line)
            rest = stream.read()
            if rest.strip():
                raise InputError(f"{self.path} is damaged in the middle, not at its end; choose another --out.")
            stream.truncate(good)

    def _write_run(self, settings: dict[str, Any]) -> None:
        run = {"command": command(), "settings": settings, "versions": versions()}
        write_file(self.run_path, json.dumps(run, indent=1) + "\n")

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line; on a full disk what was written of it is taken back before the error is raised.

        Raises:
            InputError: the file was removed or replaced meanwhile.
        """
        self._check_place()
        line = json_line(record).encode() + b"\n"
        end = self._stream.seek(0, 2)
        try:
            while line:
                line = line[self._stream.write(line) :]
        except OSError as error:
            self._stream.truncate(end)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        """Waits until all that was added is on disk, where other machines see it too.

        Raises:
            InputError: the file was removed or replaced meanwhile, so what was added is lost.
        """
        if not self._stream.closed:
            try:
                os.fsync(self._stream.fileno())
                self._check_place()
            finally:
                self._stream.close()

    def _check_place(self) -> None:
        try:
            there = os.path.samestat(os.fstat(self._stream.fileno()), self.path.stat())
        except OSError:
            there = False
        if not there:
            raise InputError(f"{self.path} was removed or replaced during the run: run the same command again")

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(InputError, OSError):  # `error` counts more
            self.close()


class RunRecords:
    """All records in a folder, in a file for each process that makes some, and this process's part in making them.

    Process r of w makes every w-th record; it never talks to the others, so they may run on many machines over one
    folder. What was made before counts, by however many processes. Each notes in a file that it has ended and what it
    skipped; the one that finds all these notes takes them away, so exactly one adds up, and none waits for another that
    may have died.

    Args:
        folder: the run's.
        ranks: which of how many processes this is.
        name: of the file of a process that is alone; the others' are called NAME.R-of-W.jsonl.
    """

    def __init__(self, folder: Path, ranks: Ranks = ALONE, name: str = "measurements.jsonl") -> None:
        self.folder, self.ranks = folder, ranks
        self.whole = folder / name
        self.path = self.whole if ranks.world == 1 else self._of_rank("", ranks.rank, ".jsonl")

    def open(self, settings: dict[str, Any]) -> ResultsFile:
        """This process's file; raises `InputError` where any of the files was made with other settings."""
        run = "run.json" if self.whole.name == "results.jsonl" else f"{self.whole.stem}.run.json"
        return ResultsFile(self.path, settings, self.folder / run, self._files())

    def left(self, ids: Sequence[str]) -> tuple[list[int], int]:
        """The numbers of this process's items that have no record yet, and how many items are its own."""
        self._note(self.ranks.rank).unlink(missing_ok=True)
        known = self._lines()
        mine = self.ranks.mine(len(ids))
        return [number for number in mine if ids[number] not in known], len(mine)

    def end(self, ids: Sequence[str], skipped: Sequence[Skipped]) -> list[Skipped] | None:
        """Note that this process has done its part, having skipped `skipped`.

        Returns:
            what all of them skipped, in the order of `ids`; None where another is still at work or adds up.

        Raises:
            InputError: records of this process's items are gone.
        """
        known, passed = self._lines(), {name for name, _ in skipped}
        mine = [ids[number] for number in self.ranks.mine(len(ids))]
        if gone := [name for name in mine if name not in known and name not in passed]:
            raise InputError(
                f"{self.folder} has lost records while this was at work ({len(gone)} items, first {gone[0]}): "
                "run the same command again"
            )
        write_file(self._note(self.ranks.rank), json.dumps(skipped))
        notes = [self._note(rank) for rank in range(self.ranks.world)]
        try:
            found = [read_json(note, _NOTE, remedy="remove it, and run the command again") for note in notes]
        except InputError:
            if all(note.exists() for note in notes):
                raise
            return None
        reasons = {name: reason for note in found for name, reason in note}
        known = self._lines()
        if any(name not in known and name not in reasons for name in ids):
            return None  # the note of an earlier, killed run: its process has only just started again
        try:
            notes[0].unlink()  # which only one process can
        except FileNotFoundError:
            return None
        for note in notes[1:]:
            note.unlink(missing_ok=True)
        return [(name, reasons[name]) for name in ids if name in reasons and name not in known]

    def records(self, ids: Iterable[str], check: Schema = anything) -> Iterator[dict[str, Any]]:
        """The records of `ids`, in their order, whatever the files' order: a sum of scores depends on it.

        Raises:
            InputError: a line is damaged, or `check` raises `Misfit` for it.
        """
        lines = self._lines()
        streams = {path: path.open("rb") for path in {path for path, _ in lines.values()}}
        try:
            for name in ids:
                if name in lines:
                    path, start = lines[name]
                    streams[path].seek(start)
                    with refused(f"{path}, the record of {name}", REMEASURE):
                        record = parse_json(streams[path].readline(), _LINE)
                        check(record)
                    yield record
        finally:
            for stream in streams.values():
                stream.close()

    def merge(self, ids: Sequence[str], *, mixed: bool = False) -> None:
        """Put the records of all files into that of a process that is alone, in the order of `ids`, others behind.

        One file alone stays as it is, unless its records are `mixed`: written as they were done, in no order.
        """
        parts = [path for path in self._files() if path != self.whole]
        if not parts and not mixed:
            return
        lines, wanted = self._lines(), set(ids)
        order = [*(name for name in ids if name in lines), *(name for name in lines if name not in wanted)]
        with whole_file(self.whole) as part, part.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{json_line(record)}\n" for record in self.records(order))
        for path in parts:
            path.unlink()

    def _files(self) -> list[Path]:
        stem = glob.escape(self.whole.stem)
        return [*self.folder.glob(glob.escape(self.whole.name)), *sorted(self.folder.glob(f"{stem}.*-of-*.jsonl"))]

    def _lines(self) -> dict[str, tuple[Path, int]]:
        """File and offset of each item's line; a last line that is being written does not count."""
        lines: dict[str, tuple[Path, int]] = {}
        for path in self._files():
            start = 0
            with path.open("rb") as stream:
                for line in stream:
                    if line.endswith(b"\n"):
                        with refused(f"a line of {path}", REMEASURE):
                            lines.setdefault(str(parse_json(line, _LINE)["id"]), (path, start))
                    start += len(line)
        return lines

    def _note(self, rank: int) -> Path:
        return self._of_rank(".ended", rank, ".json")

    def _of_rank(self, what: str, rank: int, ending: str) -> Path:
        return self.folder / f"{self.whole.stem}{what}.{rank}-of-{self.ranks.world}{ending}"


def _is_record(line: bytes) -> bool:
    try:
        parse_json(line, _LINE)
    except Misfit:
        return False
    return line.endswith(b"\n")
