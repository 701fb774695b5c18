"""Write the pairs of a folder with a captions file as tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from ttd.data.bad_samples import BadSample, BadSampleReport
from ttd.data.sources import PairSource, decode_image
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.files.documents import read_json
from ttd.files.safe_paths import name_fault
from ttd.files.schema import mapping
from ttd.runs import FileToMake, differences, make_files, read_ahead

RECORD = "pack.json"
_KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp"}


def pack(
    source: PairSource,
    folder: Path,
    *,
    per_shard: int = 10_000,
    prefix: str = "",
    limit: float = 0.1,
    threads: int = 4,
    progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[list[Path], BadSampleReport]:
    """Write shards `FOLDER/PREFIX00000.tar` ... that webdataset, img2dataset's readers and `PairSource` read.

    A sample is its image as it was, a .txt with its first caption and a .json with all `captions` and the
    `source` key. Every image is decoded once as a check; damaged pairs are left out. The bytes written
    depend on the source alone, so an interrupted job is simply run again.

    Args:
        source: what to pack.
        folder: for the shards; must not hold shards of another source.
        per_shard: pairs in a shard, before damaged ones are left out.
        prefix: of the shards' names.
        limit: share of damaged pairs above which the job stops.
        threads: that read and check images.
        progress: is told how many pairs are done.

    Returns:
        the shards, and the damage.

    Raises:
        InputError: the folder holds other shards, or too much is damaged.
    """
    if per_shard < 1:
        raise InputError(f"a shard needs at least one pair, not {per_shard}")
    if name_fault(f"{prefix}00000"):
        raise InputError(f"the prefix {prefix!r} must be the beginning of a file name, without folders")
    claim(folder, {"source": source.fingerprint(), "per_shard": per_shard, "prefix": prefix})
    report = source.report(limit)
    units = []
    for number, first in enumerate(range(0, len(source), per_shard)):
        path = folder / f"{prefix}{number:05d}.tar"
        indices = range(first, min(first + per_shard, len(source)))
        units.append(FileToMake(path.name, path, partial(_write_shard, source, indices, report, threads, progress)))
    make_files(units, again=True)  # for the report's sake, which names the damage in all of them
    return [unit.path for unit in units], report


def claim(folder: Path, record: dict[str, Any]) -> None:
    """Note in a folder whose shards it gets; raises `InputError` where it holds others."""
    path = folder / RECORD
    try:
        before = read_json(path, mapping())
    except (OSError, InputError):
        before = {}
    if (other := differences(before, record)) and any(folder.glob("*.tar")):
        raise InputError(f"{folder} holds other shards ({other}): choose another --out or empty it")
    with whole_file(path) as part:
        part.write_text(json.dumps(record) + "\n", "utf-8")


def _write_shard(
    source: PairSource,
    indices: range,
    report: BadSampleReport,
    threads: int,
    progress: Callable[[int], None],
    path: Path,
) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for batch in read_ahead(lambda index: _checked(source, index), indices, 64, threads, BadSample):
            for one in batch:
                if isinstance(one, BadSample):
                    report.add(one)
                    continue
                index, image, kind, captions, key = one
                add_sample(tar, f"{index:09d}", kind, image, captions[0], {"captions": captions, "source": key})
            progress(len(batch))


def add_sample(tar: tarfile.TarFile, name: str, kind: str, image: bytes, caption: str, record: dict[str, Any]) -> None:
    """Append a sample's three members: NAME.KIND, NAME.txt, NAME.json."""
    for suffix, data in (
        (kind, image),
        ("txt", caption.encode()),
        ("json", json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")),
    ):
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def storable_image(data: bytes, shard: str, key: str, image: Image.Image | None = None) -> tuple[str, bytes]:
    """Suffix and bytes of an image: as it is, or as PNG where shards do not have its format.

    Args:
        data: the encoded image.
        shard, key: for the `BadSample` that is raised where it cannot be decoded.
        image: the decoded image, where that is at hand.
    """
    kind = next((kind for start, kind in _KINDS.items() if data.startswith(start)), None)
    if kind is not None:
        return kind, data
    stream = io.BytesIO()
    (image or decode_image(data, shard, key)).save(stream, "PNG")
    return "png", stream.getvalue()


def _checked(source: PairSource, index: int) -> tuple[int, bytes, str, tuple[str, ...], str]:
    """A pair's bytes, after decoding them; formats that shards do not have become PNG."""
    shard, row = source.shard_row(index)
    captions, data, key = shard.captions(row), shard.image_bytes(row), shard.key(row)
    kind, data = storable_image(data, shard.name, key, decode_image(data, shard.name, key))
    return index, data, kind, captions, key
