"""None"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.data.samples import caption, image, json_bytes, write_shards, write_tar
from ttd.data.bad_samples import BadSample
from ttd.data.packing import TaggedShards, pack
from ttd.data.sources import INSIDE, PairSource
from ttd.data.tables import write_table
from ttd.data.word_table import TAGS
from ttd.errors import InputError
from ttd.scenes import Scenes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images of several formats, one of them broken, two with two captions."""
    place = tmp_path / "photos"
    place.mkdir()
    lines = []
    for i in range(7):
        kind = ("PNG", "JPEG", "WEBP", "BMP")[i % 4]
        (place / f"{i}.{kind.lower()}").write_bytes(image(i, kind=kind) if i != 4 else b"\x89PNG broken")
        captions = [caption(i), f"über {i}"] if i % 3 == 0 else [caption(i)]
        lines.append(json.dumps({"image": f"{i}.{kind.lower()}", "captions": captions}))
    (place / "pairs.jsonl").write_text("\n".join(lines))
    return place


def test_packing_and_reading_give_the_same_pairs(folder: Path, tmp_path: Path) -> None:
    before = PairSource(folder)
    paths, report = pack(before, tmp_path / "out", per_shard=3, prefix="x-", limit=0.5)
    assert [path.name for path in paths] == ["x-00000.tar", "x-00001.tar", "x-00002.tar"]
    assert report.to_dict()["damaged"] == 1
    after = PairSource(tmp_path / "out")
    whole = [before[i] for i in range(7) if i != 4]
    assert len(after) == 6
    for i, pair in enumerate(whole):
        assert after[i].captions == pair.captions
        assert after[i].image.tobytes() == pair.image.tobytes()
        assert after[i].key == f"{int(pair.key[0]):09d}"


def test_members_are_what_other_readers_expect(folder: Path, tmp_path: Path) -> None:
    pack(PairSource(folder), tmp_path / "out", limit=0.5)
    with tarfile.open(tmp_path / "out/00000.tar") as tar:
        names = tar.getnames()
        assert names[:6] == [f"00000000{i}.{suffix}" for i in (0, 1) for suffix in (("png", "jpg")[i], "txt", "json")]
        assert "000000003.png" in names  # was BMP
        read = {name: tar.extractfile(name).read() for name in names[:3]}  # type: ignore[union-attr]
    assert read["000000000.png"] == (folder / "0.png").read_bytes()
    assert read["000000000.txt"].decode() == caption(0)
    assert json.loads(read["000000000.json"]) == {"captions": [caption(0), "über 0"], "source": "0.png"}


def test_packing_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    (first,), _ = pack(PairSource(folder), tmp_path / "out", limit=0.5)
    data = first.read_bytes()
    first.write_bytes(data[:1000])  # as if another program had been killed
    pack(PairSource(folder), tmp_path / "out", limit=0.5)
    assert first.read_bytes() == data


def test_shards_of_another_source_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    pack(PairSource(folder), tmp_path / "out", limit=0.5)
    with pytest.raises(InputError, match=r"other shards \(per_shard was 10000, now 2\)"):
        pack(PairSource(folder), tmp_path / "out", per_shard=2, limit=0.5)


def test_too_much_damage_stops_and_leaves_no_half_shard(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        pack(PairSource(folder), tmp_path / "out", limit=0.1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["pack.json"]


@pytest.mark.parametrize(("per_shard", "prefix"), [(0, ""), (10, "../x"), (10, "a/b")])
def test_impossible_shards(folder: Path, tmp_path: Path, per_shard: int, prefix: str) -> None:
    with pytest.raises(InputError):
        pack(PairSource(folder), tmp_path / "out", per_shard=per_shard, prefix=prefix)


def test_scenes_can_be_packed(tmp_path: Path) -> None:
    scenes = Scenes("train")
    lines = []
    for i in range(3):
        Image.fromarray(scenes[i].image).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "caption": scenes[i].caption}))
    (tmp_path / "scenes.jsonl").write_text("\n".join(lines))
    pack(PairSource(tmp_path / "scenes.jsonl"), tmp_path / "out")
    packed = PairSource(tmp_path / "out")
    assert [packed[i].captions for i in range(3)] == [(scenes[i].caption,) for i in range(3)]


def write_words(source: PairSource, folder: Path, words: Any) -> None:
    """A table per shard with `words(key, captions)` of every pair."""
    import pyarrow as pa

    for number, shard in enumerate(source.shards):
        pairs = [source.captioned(i) for i in source.indices(number)]
        rows = [{"shard": p.shard, "key": p.key, "tags": words(p.key, p.captions)} for p in pairs]
        write_table(pa.Table.from_pylist(rows, schema=TAGS), folder / f"{shard.name}.parquet", {})


def second_words(key: str, captions: tuple[str, ...]) -> list[list[str]]:
    return [[caption.split()[1]] for caption in captions]


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    write_shards(tmp_path / "cc", [3, 0, 5])
    five = {"png": image(4), "json": json_bytes({"captions": ["a dog", "the cat é"], "url": "u", "width": 24})}
    return PairSource([tmp_path / "cc", write_tar(tmp_path / "more/0.tar", {"x/five": five})])


def test_words_travel_with_the_pairs(source: PairSource, tmp_path: Path) -> None:
    write_words(source, tmp_path / "tags", second_words)
    writer = TaggedShards(source, tmp_path / "tags", tmp_path / "out", {"by": "test"}, per_shard=2)
    written = [path.name for number in range(4) for path in writer.write(number)]
    assert written == [f"{n:05d}.tar" for n in range(6)]
    tagged = PairSource(tmp_path / "out", tags=INSIDE)
    assert len(tagged) == len(source) == 9
    for i in range(9):
        before, after = source[i], tagged[i]
        assert after.captions == before.captions
        assert after.tags == tuple(tuple(words) for words in second_words("", before.captions))
        assert after.image.tobytes() == before.image.tobytes()
    shard, row = tagged.shard_row(8)
    record = shard.record(row)
    assert (record["url"], record["width"]) == ("u", 24)
    assert (record["source_shard"], record["source"]) == ("more/0.tar", "x/five")
    assert PairSource(tmp_path / "out")[0].tags is None


def test_pairs_without_words_are_left_out(source: PairSource, tmp_path: Path) -> None:
    write_words(source, tmp_path / "tags", lambda key, c: None if key == "000000001" else second_words(key, c))
    writer = TaggedShards(source, tmp_path / "tags", tmp_path / "out", {})
    assert writer.write(0) == [tmp_path / "out" / "00000.tar"]
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert tar.getnames() == [f"00000000{n}.{kind}" for n in (0, 2) for kind in ("png", "txt", "json")]


def test_what_is_there_is_not_written_again(source: PairSource, tmp_path: Path) -> None:
    write_words(source, tmp_path / "tags", second_words)
    writer = TaggedShards(source, tmp_path / "tags", tmp_path / "out", {}, per_shard=2)
    paths = [path for number in range(4) for path in writer.write(number)]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    paths[3].unlink()
    told: list[int] = []
    again = TaggedShards(source, tmp_path / "tags", tmp_path / "out", {}, per_shard=2)
    assert [path for number in range(4) for path in again.write(number, told.append)] == paths
    assert {path: path.read_bytes() for path in paths} == {path: data for path, (data, _) in before.items()}
    assert [path for path in paths if path.stat().st_mtime_ns != before[path][1]] == [paths[3]]
    assert sum(told) == 9


def test_folders_with_other_shards_are_refused(source: PairSource, tmp_path: Path) -> None:
    write_words(source, tmp_path / "tags", second_words)
    TaggedShards(source, tmp_path / "tags", tmp_path / "out", {"by": 1}).write(0)
    for settings, per_shard in (({"by": 2}, 10_000), ({"by": 1}, 3)):
        with pytest.raises(InputError, match="holds other shards"):
            TaggedShards(source, tmp_path / "tags", tmp_path / "out", settings, per_shard=per_shard)
    with pytest.raises(InputError, match="holds the pairs themselves"):
        TaggedShards(source, tmp_path / "tags", tmp_path / "more", {})


@pytest.mark.parametrize(
    "record", [{}, {"tags": "dog"}, {"tags": [["dog"], ["cat"]]}, {"tags": [[1]]}, {"tags": ["dog"]}, [], "x"]
)
def test_shards_without_words_say_so(tmp_path: Path, record: Any) -> None:
    sample = {"png": image(0), "txt": b"a dog", "json": json.dumps(record).encode()}
    source = PairSource(write_tar(tmp_path / "cc/0.tar", {"one": sample}), tags=INSIDE)
    with pytest.raises(InputError, match=r"'one' of cc/0.tar has no words for its 1 captions.*--shards") as told:
        source[0]
    assert not isinstance(told.value, BadSample)


def test_captions_files_carry_no_words(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(image(0))
    (tmp_path / "pairs.csv").write_text("image,caption\n0.png,a dog\n")
    with pytest.raises(InputError, match="has no words"):
        PairSource(tmp_path / "pairs.csv", tags=INSIDE)[0]
