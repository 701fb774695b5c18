from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.data.samples import caption, image
from ttd.data.packing import pack
from ttd.data.sources import PairSource
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
