"""Atomic writing of files and folders."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ttd.errors import InputError, TTDError

log = logging.getLogger(__name__)

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # what `OSError.errno` says where nothing more fits
_PART = re.compile(r"\.(.*)\.(\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; moves it to `path` when the block ends, removes it when the
    block fails.

    The folder of `path` is made where it is missing. A reader, or a run that was killed, sees the old file
    or the new one and never a part. What the system says against writing is raised as `OSError` that names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        with _refusals(path, part):
            yield part
            _to_disk(part)
            part.replace(path)
            _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes, errors: str = "strict") -> None:
    """Writes text (UTF-8) or bytes, see `whole_file`; `errors` as of `str.encode`."""
    data = content.encode("utf-8", errors) if isinstance(content, str) else content
    with whole_file(path) as part:
        part.write_bytes(data)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole_file`, for a new folder and all that the block writes into it.

    `path` must not exist yet or be an empty folder; an empty one is kept, for a disk may be mounted there, and gets
    its files one after the other once all of them are on the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.is_dir()
    part = _beside(path / path.resolve().name if there else path)
    try:
        with _refusals(path, part):
            part.mkdir()
            yield part
            for inner in (*part.rglob("*"), part):
                _to_disk(inner)
            for inner in sorted(part.iterdir()) if there else ():
                inner.replace(path / inner.name)
            if not there:
                part.replace(path)
            _to_disk(path if there else path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_there(paths: Iterable[Path]) -> None:
    """Raises `InputError` where one of the files that this process has written or counted is gone."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} was removed during the run: run the same command again")


def remove_leftovers(
    folder: Path, before: int, *, of: str = "", skip: Callable[[Path], bool] = lambda folder: False
) -> None:
    """Removes what killed writers have left under `folder`: partial files and folders of `whole_file` and
    `whole_folder`.

    Args:
        folder: also its folders, but for those that are links.
        before: only what was last written before this time (nanoseconds, of the disk's own clock) and, as far as that
            can be known, by no process that still lives.
        of: only partial files of names that begin so, directly in `folder`.
        skip: whether a folder inside is left alone.
    """
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _PART.fullmatch(name)
            if match is None or not match[1].startswith(of) or _is_writing(int(match[2])):
                continue
            part = Path(place, name)
            try:
                if part.lstat().st_mtime_ns >= before:
                    continue
                if name in folders:
                    shutil.rmtree(part)
                else:
                    part.unlink()
            except OSError as error:  # somebody else's, who may remove it
                log.debug("%s stays: %s", part, error)
        folders[:] = (
            [] if of else [name for name in folders if not _PART.fullmatch(name) and not skip(Path(place, name))]
        )


def _is_writing(pid: int) -> bool:
    # In containers numbers come again: this process has not begun to write. Windows removes no open files.
    return os.name != "nt" and pid != os.getpid() and may_run(pid)


def may_run(pid: int) -> bool:
    """Whether there is such a process on this machine, as far as the system tells."""
    if os.name == "nt":  # where signal 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _beside(path: Path) -> Path:
    """A hidden name that no other writer has."""
    # Random, too: two machines that share a folder may share a process number.
    shown = path.name.encode("utf-8", "ignore")[:80].decode("utf-8", "ignore")
    return path.with_name(f".{shown}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def _refusals(path: Path, part: Path) -> Iterator[None]:
    """Failed writes as `OSError` with the name that the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno in (*DISK_FULL, errno.EFBIG) and (error.filename is None or str(part) in str(error.filename)):
            error.filename = str(path)
        raise
    except TTDError:
        raise
    except Exception as error:
        # Libraries in Rust (safetensors, tokenizers) have errors of their own for what the system said.
        said = _RUST_ERROR.search(str(error))
        if said is None:
            raise
        number = int(said[1])
        if os.name == "nt":
            raise OSError(0, str(error), str(path), number) from error
        raise OSError(number, os.strerror(number), str(path)) from error


def _to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, would survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
