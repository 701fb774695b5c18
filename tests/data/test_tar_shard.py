from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest

from tests.data.samples import caption, image, number_of, sample, write_shards, write_tar
from ttd.data import tar_index
from ttd.data import tar_shard as shards
from ttd.data.bad_samples import (
    BROKEN_JSON,
    EMPTY_CAPTION,
    ENCODING,
    MISSING_CAPTION,
    MISSING_IMAGE,
    TRUNCATED,
    UNREADABLE,
    BadSample,
)
from ttd.data.sources import PairSource, decode_image
from ttd.data.tar_shard import TarShard


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))


def whole_pairs(shard: TarShard) -> set[int]:
    """The numbers of the samples that can be read, after a check that each is what it should be."""
    found = set()
    for row in range(len(shard)):
        try:
            captions, data = shard.captions(row), shard.image_bytes(row)
            number = number_of(decode_image(data, shard.name, shard.key(row)))
        except BadSample:
            continue
        assert captions == (caption(number),)
        assert shard.key(row) == f"{number:09d}"
        found.add(number)
    return found


def test_every_sample_is_found(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path / "cc", [9])
    shard = TarShard(path)
    assert shard.name == "cc/00000.tar"
    assert shard.damage is None
    assert shard.keys().to_pylist() == [f"{i:09d}" for i in range(9)]
    assert whole_pairs(shard) == set(range(9))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_folders_and_foreign_members(tmp_path: Path, form: int) -> None:
    path = tmp_path / "x.tar"
    key = "part/" + "k" * 90
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("part")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        members = {
            f"{key}.PNG": image(5), f"{key}.txt": caption(5).encode(), f"{key}.seg.png": b"other",
            "./b.webp": image(6, kind="WEBP"), "b.JSON": json.dumps({"caption": "six"}).encode(),
            "README.md": b"", ".jpg": b"", "c.cls": b"3",
        }  # fmt: skip
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # a fraction makes PAX write extra headers
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("d.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    shard = TarShard(path)
    assert shard.keys().to_pylist() == [key, "b"]
    assert shard.image_bytes(0) == image(5)
    assert shard.captions(1) == ("six",)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"txt": b"a dog"}, MISSING_IMAGE),
        ({"png": b"", "txt": b"a dog"}, MISSING_IMAGE),
        ({"png": image(0)}, MISSING_CAPTION),
        ({"png": image(0), "json": b'{"url": "x"}'}, MISSING_CAPTION),
        ({"png": image(0), "json": b'{"caption": null}'}, MISSING_CAPTION),
        ({"png": image(0), "txt": b" \n\t"}, EMPTY_CAPTION),
        ({"png": image(0), "json": b'{"captions": ["", " "]}'}, EMPTY_CAPTION),
        ({"png": image(0), "txt": "ein Kätzchen".encode("latin-1")}, ENCODING),
        ({"png": image(0), "json": '{"caption": "ä"}'.encode("latin-1")}, ENCODING),
        ({"png": image(0), "json": b'{"caption": "\\ud800"}'}, ENCODING),
        ({"png": image(0), "json": b"{"}, BROKEN_JSON),
        ({"png": image(0), "json": b"[1]"}, BROKEN_JSON),
        ({"png": image(0), "json": b"[" * 100_000}, BROKEN_JSON),
        ({"png": image(0), "json": b'{"caption": 7}'}, BROKEN_JSON),
    ],
)  # fmt: skip
def test_damage_has_its_reason_and_costs_only_its_sample(
    tmp_path: Path, members: dict[str, bytes], reason: str
) -> None:
    shard = TarShard(write_tar(tmp_path / "x.tar", {"bad": members, "good": sample(1)}))
    with pytest.raises(BadSample) as found:
        shard.captions(0), shard.image_bytes(0)
    assert (found.value.reason, found.value.key) == (reason, "bad")
    assert shard.captions(1) == (caption(1),)


@pytest.mark.parametrize(
    ("members", "captions"),
    [
        ({"txt": "\ufeffa dog\n".encode()}, ("a dog",)),
        ({"json": b'{"caption": "a dog"}'}, ("a dog",)),
        ({"json": b'{"text": "a dog"}'}, ("a dog",)),
        ({"json": b'{"captions": ["one", " ", "two "]}'}, ("one", "two")),
        ({"txt": b"one", "json": b'{"captions": ["one", "two"]}'}, ("one", "two")),
        ({"txt": b"one", "json": b'{"caption": "other"}'}, ("one",)),
        ({"txt": b"one", "json": b"{"}, ("one",)),
    ],
)
def test_where_captions_come_from(tmp_path: Path, members: dict[str, bytes], captions: tuple[str, ...]) -> None:
    shard = TarShard(write_tar(tmp_path / "x.tar", {"k": {"png": image(0), **members}}))
    assert shard.captions(0) == captions


def test_truncated_anywhere_the_samples_before_remain(tmp_path: Path) -> None:
    """Cut at every 149th byte: what lies wholly before the cut is read, the loss is told, nothing else
    happens."""
    (path,) = write_shards(tmp_path, [4])
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        ends: dict[int, int] = {}
        for member in tar:
            if not member.name.endswith(".json"):
                ends[int(member.name[:9])] = member.offset_data + member.size
        marks = tar.offset
    for cut in range(0, len(data), 149):
        path.write_bytes(data[:cut])
        os.utime(path, ns=(cut, cut))
        shard = TarShard(path)
        sure = {number for number, end in ends.items() if end <= cut}
        assert whole_pairs(shard) == sure, cut
        if cut < marks:
            assert shard.damage is not None
            assert shard.damage.reason == (TRUNCATED if cut >= 512 else UNREADABLE)


def test_a_broken_header_in_the_middle_is_told(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path, [4])
    with tarfile.open(path) as tar:
        place = tar.getmember("000000002.png").offset
    data = bytearray(path.read_bytes())
    data[place : place + 512] = Random(0).randbytes(512)
    path.write_bytes(data)
    shard = TarShard(path)
    assert whole_pairs(shard) == {0, 1}
    assert shard.damage is not None
    assert f"byte {place:,}" in shard.damage.detail


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>" * 100, Random(0).randbytes(4096)], ids=["nothing", "a page", "noise"]
)
def test_what_is_no_tar_is_an_empty_damaged_shard(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    shard = TarShard(path)
    assert len(shard) == 0
    assert shard.damage is not None
    assert shard.damage.reason == UNREADABLE


def test_more_blocks_than_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that read at random while blocks of indices are read and dropped see the right pairs."""
    monkeypatch.setattr(tar_index, "_block", lru_cache(2)(tar_index._block.__wrapped__))
    source = PairSource(write_shards(tmp_path, [2] * 12))
    wrong: list[int] = []

    def read(step: int) -> None:
        for i in range(0, 24 * step, step):
            if number_of(source[i % 24].image) != i % 24:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(step,)) for step in (1, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write_shards(tmp_path, [1])
    monkeypatch.setattr(shards, "MOST_BYTES", 10)
    with pytest.raises(BadSample, match="a member of"):
        TarShard(path).image_bytes(0)
