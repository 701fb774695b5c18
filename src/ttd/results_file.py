"""`results.jsonl`: one line per finished image, from which an interrupted run continues."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ttd.documents import parse_json, read_json
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.runs import differences, versions
from ttd.schema import Misfit, any_text, fields, mapping

_RUN, _LINE = fields({"settings": mapping()}), fields({"id": any_text})


def json_line(record: dict[str, Any]) -> str:
    """`record` as one line; readable where Unicode allows, escaped where a file name is no valid Unicode."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False)
    return text


class ResultsFile:
    """Appends records to a file and knows which ids it already holds.

    A run that was killed leaves at most one incomplete last line, which opening cuts off. `settings` are
    kept in `run.json` beside the file; a file made with other settings is refused, so that results never
    mix. Files of several processes of one run share `run_path`, and `beside` are those that are there.
    """

    def __init__(
        self, path: Path, settings: dict[str, Any], *, run_path: Path | None = None, beside: Sequence[Path] = ()
    ) -> None:
        self.path, self.beside = path, beside
        path.parent.mkdir(parents=True, exist_ok=True)
        self.run_path = run_path or path.with_name(
            "run.json" if path.name == "results.jsonl" else f"{path.stem}.run.json"
        )
        self._check_settings(settings)
        self.done = self._repair()
        self._stream = path.open("ab", buffering=0)
        self._write_run(settings)

    def _check_settings(self, settings: dict[str, Any]) -> None:
        if not any(path.exists() for path in (self.path, *self.beside)) or not self.run_path.exists():
            return
        before = read_json(self.run_path, _RUN, remedy="choose another --out, or remove it")["settings"]
        if other := differences(before, settings):
            raise InputError(f"{self.path} holds results of another run ({other}); choose another --out or remove it.")

    def _repair(self) -> set[str]:
        """The ids of all complete lines; what stands after the last complete line is cut off."""
        if not self.path.exists():
            return set()
        done: set[str] = set()
        good = 0
        with self.path.open("rb+") as stream:
            for line in stream:
                record = _parse(line)
                if record is None:
                    break
                done.add(record)
                good += len(line)
            rest = stream.read()
            if rest.strip():
                raise InputError(f"{self.path} is damaged in the middle, not at its end; choose another --out.")
            stream.truncate(good)
        return done

    def _write_run(self, settings: dict[str, Any]) -> None:
        run = {"command": sys.argv, "settings": settings, "versions": versions()}
        with whole_file(self.run_path) as part:
            part.write_text(json.dumps(run, indent=1) + "\n", "utf-8")

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
            raise InputError(f"{self.path} was removed or replaced while this was at work: run the same command again")

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


def _parse(line: bytes) -> str | None:
    """The id of a complete line, None where it is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        return str(parse_json(line, _LINE)["id"])
    except Misfit:
        return None
