"""The index of a tar is believed only where nothing speaks against it; whatever happens to it, the pairs are right."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.damaged_index import CUTS, FLIPS, PATCHES, pairs_of
from tests.data.samples import sample, write_shards, write_tar
from ttd.data import tar_index
from ttd.data.tar_index_file import Member, Stamp, written
from ttd.data.tar_shard import TarShard


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", [4])[0]


def index_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


@pytest.mark.slow
def test_seeded_damage_gives_no_other_pair_and_no_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.data.damaged_index", str(tmp_path / "case"), "11"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, (run.returncode, run.stdout[-200:], run.stderr[-2000:])
    counts = json.loads(run.stdout.splitlines()[-1])
    assert counts.get("different", 0) == 0
    assert counts.get("left", 0) == 0
    assert counts.get("refused", 0) <= 10  # tars that were swapped while they were read, and no others
    assert counts["right"] == FLIPS + CUTS + PATCHES + 40


def test_an_index_is_made_once(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    truth = pairs_of(TarShard(path))
    monkeypatch.setattr(tar_index, "build_index", lambda *_: pytest.fail("indexed again"))
    assert pairs_of(TarShard(path)) == truth
    assert caplog.messages == []


@pytest.mark.parametrize("keep", [0, 1, 80, 200, 400])
def test_a_damaged_index_is_made_again_with_a_sentence(path: Path, keep: int, caplog: pytest.LogCaptureFixture) -> None:
    truth = pairs_of(TarShard(path))
    whole = index_of(path).read_bytes()
    index_of(path).write_bytes(whole[:keep])
    assert pairs_of(TarShard(path)) == truth
    assert index_of(path).read_bytes() == whole
    (sentence,) = caplog.messages
    assert str(index_of(path)) in sentence
    assert "is indexed again" in sentence


SAMPLES = {
    "a": {"image": Member(512, 3, 512, 1), "text": Member(1536, 700, 512, 2)},
    "b": {"image": Member(3072, 5, 512, 3)},
}


@pytest.mark.parametrize(
    ("key", "kind", "change"),
    [
        ("a", "image", {"offset": 513}),
        ("a", "image", {"offset": 0}),
        ("a", "image", {"offset": 1 << 40}),
        ("a", "image", {"size": -1}),
        ("a", "image", {"size": 1 << 62}),
        ("a", "image", {"size": 513}),
        ("a", "image", {"header": 0}),
        ("a", "image", {"header": 1024}),
        ("a", "image", {"check": 7}),
        ("a", "text", {"offset": 512}),
        ("b", "image", {"size": 1 << 20}),
        ("b", "image", {"offset": -1}),
        ("b", "image", None),
    ],
)
def test_an_index_that_says_what_cannot_be_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, kind: str, change: dict[str, int] | None
) -> None:
    """All of these have a right digest."""
    path = write_tar(tmp_path / "x.tar", {"a": {"png": b"abc", "txt": b"a dog" * 140}, "b": {"png": b"12345"}})
    TarShard(path)
    with path.open("rb") as file:
        checks = {offset: _crc(file, offset) for offset in (0, 1024, 2560)}
    samples: dict[str, dict[str, Member]] = {
        name: {k: replace(m, check=checks[m.offset - 512]) for k, m in members.items()}
        for name, members in SAMPLES.items()
    }
    stamp = Stamp.of(path)
    assert written(stamp, samples, None) == index_of(path).read_bytes()
    if change is None:
        del samples[key][kind]
    else:
        samples[key][kind] = replace(samples[key][kind], **change)
    index_of(path).write_bytes(written(stamp, samples, None))
    shard = TarShard(path)
    assert shard.image_bytes(0) == b"abc"
    assert shard.captions(0) == ("a dog" * 140,)
    assert shard.image_bytes(1) == b"12345"
    assert len(caplog.messages) == 1


def _crc(file: Any, offset: int) -> int:
    file.seek(offset)
    return zlib.crc32(file.read(512))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.replace(b'"samples": 4', b'"samples": 3'),
        lambda body: body.replace(b'"samples": 4', b'"samples": 40'),
        lambda body: body.replace(b'"samples": 4', b'"samples": -4'),
        lambda body: body.replace(b'"samples": 4', b'"samples": true'),
        lambda body: body.replace(b'"samples": 4', b'"samples": null'),
        lambda body: body.replace(b'"damage": null', b'"damage": ["x", "y"]'),
        lambda body: body.replace(b'"damage": null', b'"damage": "truncated shard"'),
        lambda body: b"[" * 50_000 + b"\n" + body.partition(b"\n")[2],
        lambda body: b"[]\n" + body.partition(b"\n")[2],
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body[:-9] + b"\xff" * 9,
        lambda body: body[:-9] + b"000000000",
        lambda body: body + b"more",
    ],
)
def test_a_right_digest_is_not_enough(path: Path, caplog: pytest.LogCaptureFixture, change: Any) -> None:
    truth = pairs_of(TarShard(path))
    first, _, body = index_of(path).read_bytes().partition(b"\n")
    body = change(body)
    forged = first[:-64] + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    index_of(path).write_bytes(forged)
    assert pairs_of(TarShard(path)) == truth
    assert len(caplog.messages) == 1


def test_an_index_is_bound_to_the_headers_of_its_tar(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An index with the right stamp, digest and places, made for a tar with other names."""
    TarShard(path)
    other = write_tar(path.parent / "other.tar", {f"{n:09d}": sample(n) for n in (7, 8, 9, 6)})
    assert other.stat().st_size == path.stat().st_size
    content = tar_index.build_index(other, Stamp.of(path))
    index_of(path).write_bytes(content)
    assert TarShard(path).keys().to_pylist() == [f"{n:09d}" for n in range(4)]
    assert "another tar" in caplog.messages[0]


def test_what_lies_in_the_place_of_an_index_may_be_anything(path: Path) -> None:
    truth = pairs_of(TarShard(path))
    index_of(path).unlink()
    os.mkfifo(index_of(path))
    assert pairs_of(TarShard(path)) == truth
    index_of(path).unlink()
    index_of(path).symlink_to("/dev/zero")
    assert pairs_of(TarShard(path)) == truth
    assert not index_of(path).is_symlink()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Folders in which nothing can be written; root may write everywhere, so this cannot be said by rights."""
    folders: set[Path] = set()
    real = tar_index.write_file

    def refuse(place: Path, content: bytes) -> None:
        if place.parent in folders:
            raise PermissionError(13, "Permission denied", str(place))
        real(place, content)

    monkeypatch.setattr(tar_index, "write_file", refuse)
    return folders


def test_where_the_folder_cannot_be_written_the_index_goes_to_the_cache(
    path: Path, tmp_path: Path, closed: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed.add(path.parent)
    truth = pairs_of(TarShard(path))
    assert [p.name for p in path.parent.iterdir()] == ["00000.tar"]
    assert len(list((tmp_path / "cache" / "indices").iterdir())) == 1
    monkeypatch.setattr(tar_index, "build_index", lambda *_: pytest.fail("indexed again"))
    assert pairs_of(TarShard(path)) == truth


def test_where_nothing_can_be_written_the_index_is_held_in_memory(
    path: Path, tmp_path: Path, closed: set[Path], caplog: pytest.LogCaptureFixture
) -> None:
    truth = pairs_of(TarShard(path))
    index_of(path).unlink()
    closed |= {path.parent, tmp_path / "cache" / "indices"}
    shard = TarShard(path)
    assert pairs_of(pickle.loads(pickle.dumps(shard))) == pairs_of(shard) == truth
    assert [p.name for p in path.parent.iterdir()] == ["00000.tar"]
    assert "kept in memory" in caplog.text


def test_what_stays_in_memory_does_not_grow_with_keys_and_members(tmp_path: Path) -> None:
    """12.8 million pairs in shards of 10,000 take a few MB: some numbers for every 128 samples."""
    members = {f"{n:060d}": {"txt": b"a dog"} for n in range(3000)}
    shard = TarShard(write_tar(tmp_path / "x.tar", members))
    assert index_of(shard.path).stat().st_size > 3000 * 140
    assert len(pickle.dumps(shard)) < 3000
    assert shard.key(2999) == f"{2999:060d}"
