"""Files at s3://, gs://, hf:// and https:// addresses: read in blocks through fsspec, kept in a cache of bounded size.

A block counts only when it is whole and when the file at the address is still the one that was opened, so a connection
that is lost, a body that is cut off or a file that is replaced never becomes data. What was fetched before an
interruption is not fetched again. Credentials come from where each service's own tools have them; addresses are shown
without what may be secret in them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import io
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from ttd.data.bad_samples import UNREADABLE, BadSample
from ttd.encoders.loading.downloads import cache_folder
from ttd.errors import InputError, TTDError, missing_extra
from ttd.files import whole_file, write_file
from ttd.files.safe_paths import check_name
from ttd.runs import without_secrets

log = logging.getLogger(__name__)
T = TypeVar("T")

BLOCK = 8 << 20  # bytes that are fetched at once
TRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 15.0  # seconds, doubled from one to the next
SIZE_VARIABLE, _SIZE = "TTD_REMOTE_CACHE", 20 * 10**9
_UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_LEAST = 64 * 10**6
_MODULES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
# By which a service tells one state of a file from another, the most exact first.
_STATES = ("etag", "ETag", "generation", "blob_id", "VersionId", "Last-Modified", "LastModified", "mtime")
_GONE, _REFUSED, _AGAIN = (404, 410), (401, 403), (408, 425, 429)
_LOCKS = tuple(threading.Lock() for _ in range(32))  # two threads do not fetch one block


def is_address(source: object) -> bool:
    """Whether a text names a file elsewhere, not a path."""
    return "://" in str(source)


class Vanished(BadSample):
    """A file that was there when it was opened is gone."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; stands where a `Path` to a local one would.

    Attributes:
        url: as named, with a signature where it has one; never shown.
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        return without_secrets(self.url)

    def __truediv__(self, name: str) -> RemoteFile:
        return RemoteFile(f"{self}/{name}")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending, as of a `Path`."""
        return PurePosixPath(self.name).suffix

    @property
    def shard_name(self) -> str:
        """Folder and file, as `ttd.data.shard.shard_name` has them; raises `InputError` where they are not names."""
        folder, name = str(self).partition("://")[2].rstrip("/").split("/")[-2:]
        return f"{check_name(folder, self, 'folder')}/{check_name(name, self, 'name')}"

    def is_dir(self) -> bool:
        """False: a folder is listed when it is named."""
        return False

    @cached_property
    def state(self) -> tuple[int, str]:
        """Bytes, and a digest of what its service tells of this state of it; asked for once.

        Raises:
            InputError: it is not there, may not be read, or its service gives no size.
        """
        return self._asked()

    @property
    def folder(self) -> Path:
        """Of the cache, for this state of the file."""
        size, state = self.state
        digest = hashlib.sha256(f"{self}\0{size}\0{state}".encode("utf-8", "surrogateescape")).hexdigest()
        return _root() / digest[:24]

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """For reading at any place; as `Path.open`."""
        assert mode == "rb", mode
        return io.BufferedReader(_Reader(self), 1 << 16)

    def copy(self) -> Path:
        """A local copy of all of it, in a folder of the same name."""
        copy = self.folder / "copy" / self.shard_name
        if not copy.is_file():
            with whole_file(copy) as part, self.open() as file, part.open("wb") as out:
                while piece := file.read(1 << 20):
                    out.write(piece)
            _make_room(self.state[0])
        return copy

    def block(self, number: int) -> Path:
        """The cache's file of bytes `number * BLOCK` and on, fetched where it is not there.

        Raises:
            Vanished: the file is gone.
            InputError: it has changed since it was opened, or cannot be read even after several tries.
        """
        place, wanted = self.folder / str(number), min(BLOCK, self.state[0] - number * BLOCK)
        with _LOCKS[hash(place) % len(_LOCKS)]:
            try:
                status = place.stat()
                if status.st_size == wanted:
                    if time.time() - status.st_mtime > 60:
                        os.utime(place)  # what was used last is removed last
                    return place
            except FileNotFoundError:
                pass
            data = self._fetched(number * BLOCK, wanted)
            write_file(place, data)
        _make_room(wanted)
        return place

    def _fetched(self, start: int, size: int) -> bytes:
        def fetch(files: Any, path: str) -> bytes:
            data: bytes = files.cat_file(path, start=start, end=start + size)
            if len(data) > size:
                raise InputError(f"the server of {self} sends whole files only, no parts of them: download it first")
            if len(data) < size:
                self._check_state()
                raise ConnectionError("the answer was cut off")
            return data

        try:
            data = _tried(self, fetch)
        except FileNotFoundError:
            raise Vanished(UNREADABLE, self.shard_name, "", "it is gone from its address") from None
        except InputError:
            self._check_state()
            raise
        self._check_state()
        return data

    def _check_state(self) -> None:
        if self._asked() != self.state:
            raise InputError(f"{self} was changed during the run: start again")

    def _asked(self) -> tuple[int, str]:
        def ask(files: Any, path: str) -> Any:
            if not self.url.startswith("hf://"):  # whose answers belong to a commit
                files.invalidate_cache()
            return files.info(path)

        try:
            found = _tried(self, ask)
        except FileNotFoundError:
            raise InputError(f"{self} does not exist: check the address") from None
        if not isinstance(found.get("size"), int):
            raise InputError(f"the server of {self} does not tell its size, so parts cannot be read: download it first")
        told = next((f"{name} {found[name]}" for name in _STATES if found.get(name)), "")
        return found["size"], hashlib.sha256(told.encode()).hexdigest()


class _Reader(io.RawIOBase):
    """A remote file as bytes at any place."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._at, self._size = file, 0, file.state[0]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        number, within = divmod(self._at, BLOCK)
        wanted = min(len(buffer), BLOCK - within, self._size - self._at)
        if wanted <= 0:
            return 0
        for _ in range(TRIES):
            with suppress(FileNotFoundError), self._file.block(number).open("rb") as block:
                block.seek(within)
                count = block.readinto(memoryview(buffer)[:wanted])
                self._at += count
                return count
        raise InputError(f"the cache {_root()} is too small for what reads it at once: set {SIZE_VARIABLE} higher")


File = Path | RemoteFile


def remote_files(source: str, endings: tuple[str, ...]) -> list[RemoteFile]:
    """The files that an address means: a brace range, a wildcard in its last part, a folder's shards, or one file.

    Args:
        source: what a user named.
        endings: of files that can be read, in lower case; in a folder only those of the first ending that occurs count.

    Raises:
        InputError: the scheme is unknown, nothing is there, or it cannot be read.
    """
    from ttd.data.listing import expand_braces

    files = []
    for url in expand_braces(source.partition("?")[0]) if "{" in source else [source]:
        path, mark, query = url.partition("?")
        folder, _, name = path.rstrip("/").rpartition("/")
        if name.lower().endswith(endings) and not any(sign in name for sign in "*["):
            files.append(RemoteFile(path + mark + query))
            continue
        pattern = name if any(sign in name for sign in "*[") else ""
        folder = folder if pattern else path.rstrip("/")
        there = sorted(_listed(RemoteFile(f"{folder}/")))
        there = [one for one in there if fnmatch.fnmatchcase(one, pattern or "*") and not one.startswith(".")]
        found = [one for one in there if pattern and one.lower().endswith(endings)]
        for ending in () if pattern else endings:
            found = found or [one for one in there if one.lower().endswith(ending)]
        if not found:
            raise InputError(f"{RemoteFile(url)} names no {', '.join(endings)} file: check the address")
        files += [RemoteFile(f"{folder}/{one}") for one in found]
    for file in files:
        _filesystem(file)
        assert file.shard_name
    return files


def _listed(folder: RemoteFile) -> list[str]:
    try:
        found: list[str] = _tried(folder, lambda files, path: files.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} does not exist, or cannot be listed: check the address") from None
    return [name.rstrip("/").rpartition("/")[2].partition("?")[0] for name in found]


def _filesystem(file: RemoteFile) -> Any:
    """fsspec's, one for each process and thread."""
    scheme = file.url.partition("://")[0]
    if scheme not in _MODULES:
        raise InputError(f"{file}: there is no way to read {scheme}://; use {', '.join(f'{s}://' for s in _MODULES)}")
    if "@" in file.url.partition("://")[2].partition("/")[0]:
        raise InputError(f"{file}: leave name and password out of the address, and write them into ~/.netrc")
    try:
        importlib.import_module(_MODULES[scheme])
        import fsspec
    except ImportError:
        raise missing_extra("remote", f"{scheme}:// needs {_MODULES[scheme]}") from None
    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        import aiohttp

        waits = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=60)
        plain = {"Accept-Encoding": "identity"}
        options["client_kwargs"] = {"trust_env": True, "timeout": waits, "headers": plain}
    return fsspec.filesystem(scheme, **options)


def _tried(file: RemoteFile, ask: Callable[[Any, str], T]) -> T:
    """What a service answers; asked again, ever later, where the connection or the service failed.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it may not be read, or all tries failed.
    """
    files = _filesystem(file)
    path, why = files._strip_protocol(file.url), ""
    for turn in range(TRIES):
        if turn:
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (turn - 1)) * random.uniform(0.5, 1.0)
            log.info("%s: %s; tried again in %.1f s", file, why, wait)
            time.sleep(wait)
        try:
            return ask(files, path)
        except (NotADirectoryError, TTDError, MemoryError):
            raise
        except Exception as raised:  # every service's library has its own
            error: BaseException = raised
            if isinstance(raised, FileNotFoundError):
                if raised.__cause__ is None or _status(raised.__cause__) in _GONE:
                    raise
                error = raised.__cause__  # fsspec takes any failure for a missing file
            status, kind = _status(error), type(error).__name__
            why = f"HTTP {status}" if status else str(error) if type(error) is ConnectionError else kind
            if status in _GONE:
                raise FileNotFoundError(str(file)) from None
            if status in _REFUSED or isinstance(error, PermissionError) or "Credential" in kind or "Token" in kind:
                raise InputError(f"{file} may not be read ({why}): {_REMEDIES[file.url.partition('://')[0]]}") from None
            if status is not None and 400 <= status < 500 and status not in _AGAIN:
                raise InputError(f"{file} cannot be read ({why}): check the address") from None
    raise InputError(f"{file} could not be read in {TRIES} tries ({why}): run the same command again later")


_REMEDIES = {
    "s3": "log in as for the aws command (AWS_PROFILE, AWS_ACCESS_KEY_ID), or set FSSPEC_S3_ANON=true for public data",
    "gs": "log in with gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "log in with hf auth login, or set HF_TOKEN",
    "http": "write name and password into ~/.netrc, or get a new address where it is a signed one",
    "https": "write name and password into ~/.netrc, or get a new address where it is a signed one",
}


def _status(error: BaseException) -> int | None:
    """The HTTP status in a library's error: aiohttp's, botocore's, huggingface_hub's or gcsfs's."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif answer is not None:
        code = getattr(answer, "status_code", None)
    else:
        code = getattr(error, "status" if hasattr(error, "status") else "code", None)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _root() -> Path:
    return cache_folder() / "remote"


def cache_limit() -> int:
    """Bytes that the cache may hold: $TTD_REMOTE_CACHE such as 200GB, else 20 GB; `InputError` where it is none."""
    given = os.environ.get(SIZE_VARIABLE, "").strip()
    if not given:
        return _SIZE
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]B|)", given.upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < _LEAST:
        raise InputError(f"{SIZE_VARIABLE}={given} is not a cache size: write 200GB, or at least 64MB")
    return size


_written = _LEAST  # bytes since this process last looked at the cache's size


def _make_room(size: int) -> None:
    """Remove what was used longest ago where the cache is too large; indices stay, which are small."""
    global _written
    limit = cache_limit()
    _written += size
    if _written < min(_LEAST, limit // 16):
        return
    _written = 0
    found = []
    for path in _root().glob("**/*"):
        with suppress(FileNotFoundError):
            being_written = path.name.startswith(".") and time.time() - path.stat().st_mtime < 3600
            if path.suffix != ".index" and path.is_file() and not being_written:
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found)[:-1]:
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size
