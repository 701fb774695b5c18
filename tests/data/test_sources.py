from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.samples import caption, image, number_of, write_shards, write_tar
from ttd.data.bad_samples import BOMB, BROKEN_IMAGE, BadSample
from ttd.data.sources import PairSource, decode_image
from ttd.errors import InputError


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def numbers(source: PairSource) -> list[int]:
    return [number_of(source[i].image) for i in range(len(source))]


def keep_list(path: Path, rows: list[tuple[str, str]]) -> Path:
    table = {"shard": [r[0] for r in rows], "key": [r[1] for r in rows], "score": [0.5] * len(rows)}
    pq.write_table(pa.table(table), path)
    return path


def test_pairs_are_numbered_through_all_shards(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "cc", [3, 0, 4])
    source = PairSource(paths)
    assert numbers(source) == list(range(7))
    assert [source[i].captions for i in range(7)] == [(caption(i),) for i in range(7)]
    assert [source.locate(i) for i in (2, 3)] == [
        ("cc/00000.tar", "000000002"),
        ("cc/00002.tar", "000000003"),
    ]
    assert [list(source.indices(s)) for s in range(3)] == [[0, 1, 2], [], [3, 4, 5, 6]]
    assert source[0].tags is None
    for wrong in (-1, 7):
        with pytest.raises(IndexError):
            source[wrong]


def test_a_source_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    source = PairSource(write_shards(tmp_path, [3]), keep=None)
    assert numbers(pickle.loads(pickle.dumps(source))) == [0, 1, 2]


def test_the_fingerprint_follows_the_data_not_the_place(tmp_path: Path) -> None:
    here, there = write_shards(tmp_path / "x/cc", [3, 4]), write_shards(tmp_path / "y/cc", [3, 4])
    keep = keep_list(tmp_path / "k.parquet", [("cc/00000.tar", "000000001")])
    prints = [
        PairSource(here).fingerprint(),
        PairSource(here[::-1]).fingerprint(),
        PairSource(here[:1]).fingerprint(),
        PairSource(here, keep=keep).fingerprint(),
        PairSource(write_shards(tmp_path / "z/cc", [3, 5])).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert PairSource(there).fingerprint() == prints[0]


def test_a_keep_list_chooses_pairs_in_the_order_of_the_shards(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "cc", [3, 2, 4])
    rows = [("cc/00002.tar", "000000008"), ("cc/00000.tar", "000000002"), ("cc/00002.tar", "000000005"),
            ("cc/00002.tar", "000000008"), ("cc/00000.tar", "nobody"), ("other/00000.tar", "000000000")]  # fmt: skip
    source = PairSource(paths, keep=keep_list(tmp_path / "keep.parquet", rows))
    assert numbers(source) == [2, 5, 8]
    assert [list(source.indices(s)) for s in range(3)] == [[0], [], [1, 2]]
    assert source.locate(1) == ("cc/00002.tar", "000000005")


def test_keep_lists_that_do_not_fit(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "cc", [3])
    with pytest.raises(InputError, match="names none of the pairs"):
        PairSource(paths, keep=keep_list(tmp_path / "a.parquet", [("dd/00000.tar", "000000000")]))
    with pytest.raises(InputError, match="does not exist"):
        PairSource(paths, keep=tmp_path / "none.parquet")
    (tmp_path / "b.parquet").write_text("no")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        PairSource(paths, keep=tmp_path / "b.parquet")
    pq.write_table(pa.table({"shard": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match='no column "key"'):
        PairSource(paths, keep=tmp_path / "c.parquet")


@pytest.mark.parametrize("form", ["jsonl", "parquet", "folder"])
def test_words_chosen_beforehand(tmp_path: Path, form: str) -> None:
    paths = write_shards(tmp_path / "cc", [2, 3])
    rows = [
        {"shard": f"cc/0000{int(i > 1)}.tar", "key": f"{i:09d}", "tags": [[f"w{i}", "x"][: i % 3]]}
        for i in (4, 2, 0, 1, 3)
    ]
    path = tmp_path / ("tags" if form == "folder" else f"tags.{form}")
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        (path / "cc").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows[:3]), path / "cc/a.parquet")
        pq.write_table(pa.Table.from_pylist(rows[3:]), path / "cc/b.parquet")
    keep = keep_list(tmp_path / "keep.parquet", [("cc/00000.tar", "000000001"), ("cc/00001.tar", "000000004")])
    wanted = [((f"w{i}", "x")[: i % 3],) for i in range(5)]
    source = PairSource(paths, tags=path)
    assert [source[i].tags for i in range(5)] == wanted
    source = PairSource(paths, tags=path, keep=keep)
    assert [source[i].tags for i in range(2)] == [wanted[1], wanted[4]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"shard": "cc/00000.tar", "key": "000000001", "tags": ["a"]}, "no tags for pair '000000000'"),
        ({"shard": "cc/00000.tar", "key": "000000000", "tags": [["a"], ["b"]]}, "tags for 2 captions"),
        ({"shard": "dd/00000.tar", "key": "000000000", "tags": ["a"]}, "none of the pairs"),
        ({"key": "000000000", "tags": ["a"]}, 'line 1 has no "shard": each line needs "shard"'),
        ({"shard": "cc/00000.tar", "key": "000000000", "tags": [[1]]}, r"line 1: .tags\[0\]\[0\]. is not a text"),
        ({"shard": "cc/00000.tar", "key": "000000000", "tags": [["a", None]]}, r"line 1: .tags\[0\]\[1\]"),
        ({"shard": None, "key": "000000000", "tags": ["a"]}, "line 1: .shard. is not a text"),
    ],
)
def test_words_that_do_not_fit(tmp_path: Path, line: dict[str, object], message: str) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=message):
        PairSource(write_shards(tmp_path / "cc", [2]), tags=tmp_path / "t.jsonl")[0]


def test_two_shards_of_one_name_are_refused(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "a/train", [1]) + write_shards(tmp_path / "b/train", [1])
    with pytest.raises(InputError, match="same folder and file name"):
        PairSource(paths)


def test_a_jpeg_cut_anywhere_never_passes_as_whole() -> None:
    data = jpeg()
    for end in range(0, len(data) - 2, 37):
        with pytest.raises(BadSample) as found:
            decode_image(data[:end], "s", "k")
        assert found.value.reason == BROKEN_IMAGE
    assert decode_image(data, "s", "k").size == (64, 64)


@pytest.mark.parametrize("side", [13_400, 60_000, 2**31 - 1])
def test_a_bomb_is_never_decoded(side: int) -> None:
    with pytest.raises(BadSample) as found:
        decode_image(bomb(side), "s", "k")
    assert found.value.reason == BOMB


def test_a_image_between_pillows_two_limits_is_no_bomb() -> None:
    with pytest.raises(BadSample) as found:  # 100 megapixels claimed, none there
        decode_image(bomb(10_000), "s", "k")
    assert found.value.reason == BROKEN_IMAGE


@pytest.mark.parametrize("data", [b"<html>403</html>", b"\xff\xd8\xff", b"GIF89a", b"\x00" * 100, image(0)[:40]])
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(BadSample) as found:
        decode_image(data, "s.tar", "k")
    assert (found.value.reason, found.value.shard, found.value.key) == (BROKEN_IMAGE, "s.tar", "k")


def test_a_broken_image_is_not_blamed_on_its_exif_data(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    with caplog.at_level("WARNING", "ttd"), pytest.raises(BadSample, match="truncated"):
        decode_image(stream.getvalue()[:2000], "s.tar", "k")  # its header is whole
    assert caplog.text == ""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG", exif=b"Exif\0\0nonsense")
    with caplog.at_level("WARNING", "ttd"):
        assert decode_image(stream.getvalue(), "set/s.tar", "k").size == (8, 8)
    assert "the EXIF data of pair 'k' of set/s.tar cannot be read" in caplog.text


def test_images_come_as_upright_rgb(tmp_path: Path) -> None:
    stream = io.BytesIO()
    grey = Image.new("L", (30, 20), 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    grey.save(stream, "JPEG", exif=exif)
    path = write_tar(tmp_path / "x.tar", {"k": {"jpeg": stream.getvalue(), "txt": b"a fog"}})
    image = PairSource(path)[0].image
    assert (image.mode, image.size) == ("RGB", (20, 30))
