"""Files that come from elsewhere: where they are kept, their hashes, and released checkpoints.

Nothing here is trusted: a file counts only when it is complete, and where a hash is known, when it has it.
A file appears under its final name in one step, so an interrupted download never looks like a model.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttd.encoders.loading.catalogue import ModelEntry
from ttd.errors import ModelError
from ttd.files import DISK_FULL

log = logging.getLogger(__name__)

NEEDS_NONE = 'the model "mini" needs no download'
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """The folder for downloads: $TTD_CACHE, else ~/.cache/ttd. It need not exist yet."""
    return Path(os.environ.get("TTD_CACHE") or Path.home() / ".cache" / "ttd").expanduser()


def human_size(size: int | None) -> str:
    """Bytes as people say them ("about 599 MB"), or "of unknown size"."""
    if size is None:
        return "of unknown size"
    return f"about {size / 1e9:.1f} GB" if size >= 1e9 else f"about {max(size / 1e6, 1):.0f} MB"


def check_hash(path: Path, expected: str) -> None:
    """Delete a file that does not have the expected SHA-256, link and target, and raise ModelError."""
    from ttd.encoders.loading.checkpoints import sha256

    found = sha256(path)
    if found == expected:
        return
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise ModelError(
        f"{path.name} has the hash {found[:12]}... where {expected[:12]}... was expected, so the download is "
        "damaged or was replaced: it has been deleted; try again, or fetch it from its publisher by hand"
    )


def free_space(place: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def check_space(place: Path, needed: int, what: str) -> None:
    """Raise ModelError where a disk has not the bytes that a download needs."""
    free = free_space(place)
    log.info("%s is %s; %s is free in %s", what, human_size(needed), human_size(free), place)
    if needed > free:
        raise ModelError(
            f"{what} is {human_size(needed)} and only {human_size(free)} is free in {place}: free some space, or set "
            "TTD_CACHE to another folder"
        )


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Say a full or closed disk in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ModelError(
                f"the disk that holds {target} is full: free some space, or set TTD_CACHE to another folder"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ModelError(f"{target} cannot be written: set TTD_CACHE to a folder where you may write") from error
        raise


def released_weights(entry: ModelEntry) -> Path:
    """A released file's weights as safetensors with their own names: fetched and converted once, kept in the cache.

    A file (`tcl.pth`) that was put into the cache by hand is converted and left where it is.
    """
    from filelock import FileLock

    assert entry.file is not None
    folder = cache_folder()
    converted = folder / Path(entry.file).with_suffix(".safetensors").name
    if converted.is_file():
        return converted
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{entry.file}.lock"):  # several processes of one run ask at once
            if converted.is_file():
                return converted
            raw = folder / entry.file
            by_hand = raw.is_file()
            if not by_hand:
                download(entry.source, raw, sha256=entry.sha256, size=entry.size)
            convert_to_safetensors(raw, converted)
            if not by_hand:
                raw.unlink()
    return converted


def convert_to_safetensors(source: Path, target: Path) -> None:
    """Write the tensors of a checkpoint under their own names as safetensors, in one step."""
    from ttd.encoders.loading.checkpoints import read_tensors, write_tensors

    write_tensors(read_tensors(source), target)


def download(url: str, target: Path, *, sha256: str | None = None, size: int | None = None) -> None:
    """Fetch `url` into `target`; a transfer that broke off continues where it stopped (`target` + ".part").

    Raises ModelError when the address cannot be reached, the transfer breaks off, or the hash is wrong.
    """
    part = target.with_name(target.name + ".part")
    try:
        with disk_errors(target.parent):
            total = _transfer(url, part, target.name)
    except (OSError, urllib.error.URLError) as error:
        raise ModelError(
            f"{target.name} ({human_size(size)}) is not on this machine and could not be downloaded from "
            f"{url} ({getattr(error, 'reason', None) or error}): try again online, or put the file at "
            f"{target} by hand; {NEEDS_NONE}"
        ) from error
    have = part.stat().st_size
    if total is not None and have != total:
        raise ModelError(
            f"the download of {target.name} broke off after {human_size(have)} of {human_size(total)}: "
            "run the same command again to continue it"
        )
    if sha256 is not None:
        check_hash(part, sha256)
    part.replace(target)
    _tag_file(part).unlink(missing_ok=True)


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _transfer(url: str, part: Path, label: str) -> int | None:
    """Append to `part` what it lacks of `url`; return the whole length as the server gives it, if it does."""
    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "ttd", "Accept-Encoding": "identity"})
    tag_file = _tag_file(part)
    have = part.stat().st_size if part.is_file() and tag_file.is_file() else 0
    if have:
        # If-Range: a file that changed meanwhile comes whole, never glued to an older start.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag_file.read_text(encoding="utf-8"))
    with urllib.request.urlopen(request, timeout=60) as response:
        have = have if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total is not None:
            check_space(part.parent, total - have, label)
        if tag := response.headers.get("ETag"):
            tag_file.write_text(tag, encoding="utf-8")
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=label, disable=None)
        with bar, part.open("ab" if have else "wb") as file:
            while block := response.read(_CHUNK):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    return total
