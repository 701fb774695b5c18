"""One process at a time for each rank of a run's folder, also after a crash.

`FOLDER/.ttd-RANK-of-WORLD.lock` exists while a process works, and names it. Whether that process still works is never
read from the name alone:

1. The system's lock on the file (`flock`) ends with its process, also by kill -9; NFS, CephFS and Lustre (mounted with
   `-o flock`) pass it on to the other machines.
2. Where the file system has no such lock, or keeps it from other machines (sshfs, `nolock`), the file's time counts:
   whoever holds the lock renews it every few seconds, and a lock that is not renewed any more is nobody's.

The library `filelock` is not enough here: without `flock` it leaves a file that blocks the next start after a kill on
another machine, and before version 4 its second process empties the file that names the first.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

from ttd.errors import InputError
from ttd.files import may_run, remove_leftovers, schema
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit
from ttd.runs.engine import command_line

log = logging.getLogger(__name__)

RENEW_SECONDS = 4.0
DEAD_SECONDS = 15.0  # a lock that was not renewed for so long is nobody's
_HANDOVER_SECONDS = 1.0  # a process that is just ending, or looking at the lock, is waited for
_LOOK_SECONDS = 0.05
_MOST_COMMAND = 100  # characters of a command in a message
_NAME = re.compile(r"\.ttd-(.*?)(\d+)-of-(\d+)\.lock")
_FAR = 1 << 30  # Windows locks bytes: one behind what is written, so that others can read that
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

_Locked = Literal["taken", "busy", "unsupported"]


_HOLDER = schema.fields(
    {**dict.fromkeys(("host", "machine", "since", "command", "token"), schema.any_text), "pid": schema.integer}
)


@dataclass(frozen=True)
class Holder:
    """The process that a lock file names.

    Attributes:
        host, pid: where it runs.
        machine: tells kernels apart, for two machines may have one name and a container has any.
        since: when it began, local time.
        command: how it was started.
        token: tells it apart from all others.
    """

    host: str
    pid: int
    machine: str
    since: str
    command: str
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        """The process that calls."""
        now = datetime.now().isoformat(" ", "seconds")
        return cls(socket.gethostname(), os.getpid(), _machine(), now, command_line(), secrets.token_hex(8))

    @classmethod
    def parse(cls, content: bytes) -> Holder | None:
        """What a lock file holds, None where that is nothing (its process has only just begun) or damaged."""
        try:
            record = parse_json(content, _HOLDER)
            return cls(**{field.name: record[field.name] for field in fields(cls)})
        except Misfit:
            return None


class RunLock:
    """Held inside a `with` block: no other process does the same part of the same run.

    Partial files that killed processes have left in the folder are removed, where no other rank is at work.

    Args:
        folder: of the run; must exist.
        rank, world: which of how many processes this is. Ranks of one world work side by side; those of another
            would do the same items, and are refused.
        name: of the results, where a folder holds those of several runs.

    Raises:
        InputError: on entering, where another process is at work; the sentence names it.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1, *, name: str = "") -> None:
        self.folder, self.rank, self.world = folder, rank, world
        self._name = f"{name}-" if name else ""
        self.path = folder / f".ttd-{self._name}{rank}-of-{world}.lock"
        self._holder = Holder.this_process()
        self._file = -1
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew, name="renews a run's lock", daemon=True)

    def __enter__(self) -> RunLock:
        self._file = self._take()
        try:
            self._check_other_worlds()
            self._sweep()
        except BaseException:
            self._give_back()
            raise
        self._renewal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._renewal.join()
        try:
            if self.world > 1:  # of whom some may have been killed since
                self._sweep()
        finally:
            self._give_back()

    def _take(self) -> int:
        """The open file, locked and with this process's name in it."""
        until = time.monotonic() + _HANDOVER_SECONDS
        while True:
            number = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = _lock(number)
                if locked == "busy":
                    if time.monotonic() > until:
                        raise self._refusal(_read(number), self.rank, self.world)
                    time.sleep(_LOOK_SECONDS)
                elif _is_at(number, self.path):  # not removed, by the one who had it, since it was opened
                    before = _read(number)
                    if before is not None and _works(before, self.path, locked):
                        raise self._refusal(before, self.rank, self.world)
                    self._write(number, alone=locked == "taken")
                    return number
            except BaseException:
                os.close(number)
                raise
            os.close(number)

    def _write(self, number: int, *, alone: bool) -> None:
        os.lseek(number, 0, os.SEEK_SET)
        os.ftruncate(number, 0)
        os.write(number, json.dumps(asdict(self._holder)).encode())
        os.fsync(number)
        if alone:
            return
        # Nothing kept a second process from doing the same at the same time: the last one to write has the lock.
        time.sleep(_HANDOVER_SECONDS)
        now = _read_path(self.path)
        if now is not None and now.token != self._holder.token:
            raise self._refusal(now, self.rank, self.world)

    def _check_other_worlds(self) -> None:
        for path in self.folder.glob(".ttd-*.lock"):
            match = _NAME.fullmatch(path.name)
            if match is None or match[1] != self._name or int(match[3]) == self.world:
                continue
            try:
                number = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                locked = _lock(number, shared=True)
                other = _read(number)
                if locked == "busy" or (other is not None and _works(other, path, locked)):
                    raise self._refusal(other, int(match[2]), int(match[3]))
                if locked == "taken" and os.name != "nt":  # which removes no open files
                    path.unlink(missing_ok=True)
            finally:
                os.close(number)

    def _sweep(self) -> None:
        # Marked first: what is written by a process that begins after the look at its lock is younger than this.
        os.utime(self._file if os.utime in os.supports_fd else self.path)
        mark = os.fstat(self._file).st_mtime_ns
        if not any(path != self.path and is_held(path) for path in self.folder.glob(".ttd-*.lock")):
            of = f"{Path(self._name).stem}." if self._name else ""  # NAME.jsonl has NAME.run.json beside it
            remove_leftovers(self.folder, mark, of=of, skip=_holds_others)

    def _refusal(self, holder: Holder | None, rank: int, world: int) -> InputError:
        what = str(self.folder / self._name[:-1]) if self._name else str(self.folder)
        if holder is None:
            who = "another process"
        else:
            command = holder.command
            command = command if len(command) <= _MOST_COMMAND else f"{command[:_MOST_COMMAND]}…"
            who = f"process {holder.pid} on {holder.host}, since {holder.since}: {command}"
        worlds = "" if world == self.world == 1 else f" as rank {rank} of {world} (here: {self.rank} of {self.world})"
        return InputError(f"{what} is in use{worlds} by {who}; wait for its end or choose another --out")

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                os.utime(self._file if os.utime in os.supports_fd else self.path)
            except OSError as error:  # tried again; if the folder is gone, writing the results says so
                log.debug("%s could not be renewed: %s", self.path, error)

    def _give_back(self) -> None:
        if os.name != "nt" and _is_at(self._file, self.path):
            self.path.unlink(missing_ok=True)
        os.close(self._file)
        if os.name == "nt":
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:  # another process has opened it meanwhile, and removes it in its turn
                log.debug("%s is in use again", self.path)


def is_held(path: Path) -> bool:
    """Whether a process has the lock `path`, as far as that is known at once."""
    try:
        number = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        locked = _lock(number, shared=True)
        holder = _read(number)
        elsewhere = holder is not None and holder.machine != _machine()
        return locked == "busy" or elsewhere or (locked == "unsupported" and holder is not None)
    finally:
        os.close(number)


def _holds_others(folder: Path) -> bool:
    """Whether a folder inside a run's belongs to a run of its own that is at work."""
    return any(is_held(path) for path in folder.glob(".ttd-*.lock"))


def _works(holder: Holder, path: Path, locked: _Locked) -> bool:
    """Whether the process that a lock file names still works, where the system's lock does not say so."""
    if holder.machine == _machine() and (locked == "taken" or not may_run(holder.pid)):
        return False
    log.warning(
        "%s was held by process %d on %s: looking for %.0f seconds whether it still works",
        *(path, holder.pid, holder.host, DEAD_SECONDS),
    )
    first, until = _age_mark(path), time.monotonic() + DEAD_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, RENEW_SECONDS / 2))
        now = _age_mark(path)
        if now is None:
            return False
        if now != first:
            return True
    return False


def _age_mark(path: Path) -> int | None:
    """Changes whenever the file is renewed; None where it is gone."""
    try:
        number = os.open(path, os.O_RDONLY)  # NFS asks its server when a file is opened, and not before
    except FileNotFoundError:
        return None
    try:
        return os.fstat(number).st_mtime_ns
    finally:
        os.close(number)


def _machine() -> str:
    """One kernel: its processes see each other's locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def _is_at(number: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def _read(number: int) -> Holder | None:
    os.lseek(number, 0, os.SEEK_SET)
    return Holder.parse(os.read(number, 1 << 16))


def _read_path(path: Path) -> Holder | None:
    try:
        return Holder.parse(path.read_bytes())
    except FileNotFoundError:
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock(number: int, *, shared: bool = False) -> _Locked:
        os.lseek(number, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return "busy"
            raise
        return "taken"

else:
    import fcntl

    def _lock(number: int, *, shared: bool = False) -> _Locked:
        """Try to lock an open file until it is closed."""
        try:
            fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return "busy"
            if error.errno in _NO_LOCKS:
                return "unsupported"
            raise
        return "taken"
