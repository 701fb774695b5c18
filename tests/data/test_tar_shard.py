from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import threading
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest

from tests.data.samples import caption, image, number_of, sample, write_shards, write_tar
from ttd.data import tar_index
from ttd.data.bad_samples import (
    BROKEN_JSON,
    EMPTY_CAPTION,
    ENCODING,
    MISSING_CAPTION,
    MISSING_IMAGE,
    TRUNCATED,
    TWICE,
    UNREADABLE,
    BadSample,
)
from ttd.data.shard import MOST_BYTES
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


def test_a_huge_member_is_not_read(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "00000.tar", [("a.txt", b"a dog")])
    with tarfile.open(path, "a") as tar:
        huge = tarfile.TarInfo("a.jpg")
        huge.size = MOST_BYTES
        tar.addfile(huge)  # without its bytes: the file is sparse
    os.truncate(path, 5 * tarfile.BLOCKSIZE + MOST_BYTES)
    with pytest.raises(BadSample, match="a member of"):
        TarShard(path).image_bytes(0)


def tar_of(path: Path, members: list[tuple[str, bytes | str]]) -> Path:
    """A tar of names with content, or with the name that a hard link (or, after "->", a symbolic one) leads to."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type = tarfile.SYMTYPE if data.startswith("->") else tarfile.LNKTYPE
                info.linkname = data.removeprefix("->")
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def outcome(path: Path) -> dict[str, object]:
    """By key: the number of the image and the captions, or the reason why there are none."""
    source = PairSource(path)
    found: dict[str, object] = {}
    for i in range(len(source)):
        try:
            pair = source[i]
            found[pair.key] = (number_of(pair.image), *pair.captions)
        except BadSample as damage:
            found[damage.key] = damage.reason
    return found


def pair(key: str, number: int) -> list[tuple[str, bytes | str]]:
    return [(f"{key}.png", image(number)), (f"{key}.txt", f"caption {number}".encode())]


@pytest.mark.parametrize(
    "keys",
    [
        ["000000", "IMG.2021.05.01", "IMG.2021.05.02", "IMG"],
        ["crop_1.0", "crop_1.1", "crop_1.2"],
        ["a.b/1", "a.b/2.x", "a.b/2.y", "v1.0/deep.er/z"],
        ["img.jpg", "img.png", "photo.final.jpeg"],  # an ending twice
        ["1", "1.txt", "1.json"],
    ],
)
def test_dots_in_names_merge_nothing(tmp_path: Path, keys: list[str]) -> None:
    path = tar_of(tmp_path / "0.tar", [member for n, key in enumerate(keys) for member in pair(key, n)])
    assert outcome(path) == {key: (n, f"caption {n}") for n, key in enumerate(keys)}


def test_what_else_belongs_to_a_sample_is_no_other(tmp_path: Path) -> None:
    more: list[tuple[str, bytes | str]] = [
        ("1.seg.png", image(9)), ("1.meta.json", b"{}"), ("1.cls", b"3"), ("1.de.txt", b"ein Hund"),
        ("._1.png", b"x"), ("__MACOSX/._1.png", b"x"), ("shard.stats.json", b"{}"),
        ("lone.2021.png", image(7)),
    ]  # fmt: skip
    path = tar_of(tmp_path / "0.tar", [*pair("1", 1), *more])
    assert outcome(path) == {"1": (1, "caption 1"), "lone.2021": MISSING_CAPTION}


@pytest.mark.parametrize("mode", ["two", "padded", "three"])
def test_tars_one_after_the_other_are_read_to_the_end(tmp_path: Path, mode: str) -> None:
    parts = [tar_of(tmp_path / f"{n}.part", pair(f"{n}", n)).read_bytes() for n in range(3 if mode == "three" else 2)]
    if mode == "padded":
        parts[0] += bytes(1 << 17)
    path = tmp_path / "all.tar"
    path.write_bytes(b"".join(parts))
    assert outcome(path) == {str(n): (n, f"caption {n}") for n in range(len(parts))}
    assert PairSource(path).shards[0].damage is None
    path.write_bytes(b"".join(parts)[: 1200 - 10240])
    assert PairSource(path).shards[0].damage is not None
    path.write_bytes(b"".join(parts) + b"no tar".ljust(512))
    damage = PairSource(path).shards[0].damage
    assert damage is not None
    assert damage.reason in (TRUNCATED, UNREADABLE)


def test_a_name_twice_is_a_bad_sample_and_the_first_counts(tmp_path: Path) -> None:
    members = [*pair("1", 1), *pair("2", 2), *pair("1", 3), ("2.txt", b"another"), *pair("1", 4), *pair("2#2", 5)]
    wanted = {
        "1": (1, "caption 1"), "2": (2, "caption 2"), "1#2": TWICE, "2#2#": TWICE, "1#3": TWICE,
        "2#2": (5, "caption 5"),
    }  # fmt: skip
    path = tar_of(tmp_path / "0.tar", members)
    assert outcome(path) == wanted
    assert outcome(path) == wanted  # by the index that was kept
    both = tmp_path / "both.tar"
    both.write_bytes(
        tar_of(tmp_path / "a", pair("1", 1)).read_bytes() + tar_of(tmp_path / "b", pair("1", 2)).read_bytes()
    )
    assert outcome(both) == {"1": (1, "caption 1"), "1#2": TWICE}


def test_links_are_read_as_what_they_lead_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [
        ("a/1.png", image(1)), ("a/1.txt", b"one"), ("a/2.png", "a/1.png"), ("a/2.txt", b"two"),
        ("a/3.png", "->1.png"), ("a/3.txt", "->../b/3.txt"), ("a/4.png", "->2.png"), ("a/4.txt", b"four"),
        ("a/5.png", "->6.png"), ("a/6.png", "->5.png"), ("a/5.txt", b"five"), ("b/3.txt", b"three"),
        ("a/7.png", "./a/1.png"), ("a/7.txt", "a/1.txt"),
    ]  # fmt: skip
    path = tar_of(tmp_path / "0.tar", members)
    wanted = {
        "a/1": (1, "one"), "a/2": (1, "two"), "a/3": (1, "three"), "a/4": (1, "four"), "a/5": MISSING_IMAGE,
        "b/3": MISSING_IMAGE, "a/7": (1, "one"),
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert outcome(path) == wanted
    assert "left out 2 links to what the tar does not hold, first a/5.png" in caplog.text
    assert outcome(path) == wanted


def test_images_of_other_kinds_and_several_of_one_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [
        ("1.gif", image(1, kind="GIF")), ("1.txt", b"one"), ("2.BMP", image(2, kind="BMP")), ("2.txt", b"two"),
        ("3.png", image(3)), ("3.jpg", image(9, kind="JPEG")), ("3.txt", b"three"),
    ]  # fmt: skip
    path = tar_of(tmp_path / "0.tar", members)
    with caplog.at_level(logging.WARNING):
        found = outcome(path)
    assert (found["2"], found["3"]) == ((2, "two"), (3, "three"))
    assert isinstance(found["1"], tuple)
    assert "left out 1 second images of a sample, first 3.jpg" in caplog.text
