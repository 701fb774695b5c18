"""Shards and TagMask sets hold the truth, byte for byte the same, and an interrupted call goes on."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ttd.cli.scenes import scenes as command
from ttd.errors import InputError
from ttd.scenes import BACKGROUNDS, NOUNS, Scenes
from ttd.scenes.write import write_shards, write_tagmask


def test_shards_hold_image_caption_and_truth(tmp_path: Path) -> None:
    world = Scenes("validation")
    paths = write_shards(world, 5, tmp_path / "a", per_shard=2, start=10)
    assert [path.name for path in paths] == ["00000.tar", "00001.tar", "00002.tar"]
    with tarfile.open(paths[1]) as tar:
        assert tar.getnames() == [f"{i:08d}.{e}" for i in (12, 13) for e in ("png", "txt", "json")]
        image = np.asarray(Image.open(tar.extractfile("00000012.png")))
        assert (image == world[12].image).all()
        assert tar.extractfile("00000012.txt").read().decode() == world[12].caption
        assert set(json.loads(tar.extractfile("00000012.json").read())["true"]) == world[12].true_words
    first = paths[0].read_bytes()
    paths[0].unlink()
    kept = paths[1].stat().st_mtime_ns
    write_shards(world, 5, tmp_path / "a", per_shard=2, start=10)
    assert paths[0].read_bytes() == first
    assert paths[1].stat().st_mtime_ns == kept


def test_shards_with_several_and_with_wrong_captions(tmp_path: Path) -> None:
    world = Scenes("train")
    [several] = write_shards(world, 6, tmp_path / "several", captions=3)
    for number, truth in enumerate(_truths(several)):
        assert truth["captions"] == [world.caption(number, world[number].labels, epoch).text for epoch in range(3)]
        assert truth["caption"] == truth["captions"][0] == world[number].caption
        assert set(truth["true"]) <= set(truth["labels"])
    [mixed] = write_shards(world, 60, tmp_path / "mixed", wrong_percent=40)
    truths = _truths(mixed)
    own = [truth["caption"] == world[number].caption for number, truth in enumerate(truths)]
    assert own == [not truth["wrong"] for truth in truths]
    assert 12 <= sum(truth["wrong"] for truth in truths) <= 36


def _truths(shard: Path) -> list[dict[str, Any]]:
    with tarfile.open(shard) as tar:
        return [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]


def test_tagmask_set_has_the_documented_layout(tmp_path: Path) -> None:
    world = Scenes("test")
    write_tagmask(world, 4, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [f"{i:08d}" for i in range(4)]
    vocabulary = (tmp_path / "vocabulary.txt").read_text("utf-8").split()
    classes = (tmp_path / "classes.txt").read_text("utf-8").split()
    assert vocabulary == classes == [*NOUNS, *BACKGROUNDS]
    for i, row in enumerate(rows):
        scene = world[i]
        assert set(row["true"]) == scene.true_words <= set(row["words"])
        assert row["present"] == list(scene.labels)
        union = np.asarray(Image.open(tmp_path / "masks" / f"{row['id']}.png"))
        assert ((union == 255) == scene.union_mask).all()
        for word in row["true"]:
            mask = np.asarray(Image.open(tmp_path / "masks" / row["id"] / f"{word}.png"))
            assert ((mask == 255) == scene.mask(word)).all()
        assert (np.asarray(Image.open(tmp_path / "images" / f"{row['id']}.png")) == scene.image).all()
        labels = np.array(classes)[np.asarray(Image.open(tmp_path / "labels" / f"{row['id']}.png"))]
        assert (labels == np.array(scene.labels)[scene.label_map]).all()


def test_command_writes_and_refuses_unknown_nouns(tmp_path: Path) -> None:
    call = ["write", str(tmp_path / "s"), "--count", "3", "--hold-out-nouns", "dog,cat", "--style", "noto"]
    result = CliRunner().invoke(command, call, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "s" / "00000.tar").exists()
    wrong = CliRunner().invoke(command, ["write", str(tmp_path / "t"), "--hold-out-nouns", "submarine"])
    assert isinstance(wrong.exception, InputError)
    assert not (tmp_path / "t").exists()
    assert "dog\tanimal" in CliRunner().invoke(command, ["words"]).output


@pytest.mark.parametrize("form", ["shards", "tagmask"])
def test_a_failed_write_leaves_no_part(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(image: np.ndarray) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ttd.scenes.write.png_bytes", full)
    write = write_shards if form == "shards" else write_tagmask
    with pytest.raises(OSError, match="space"):
        write(Scenes("test"), 2, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
