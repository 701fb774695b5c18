from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.samples import image
from ttd.data.bad_samples import EMPTY_CAPTION, ENCODING, MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.captions_file import CaptionsFile
from ttd.data.sources import PairSource
from ttd.errors import InputError

WANTED = {"one.png": ("a dog", "a hound"), "sub/two.png": ('a "cat", sleeping',)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(WANTED):
        (tmp_path / name).write_bytes(image(i))
    return tmp_path


def read(path: Path, images: Path | None = None) -> dict[str, tuple[str, ...]]:
    shard = CaptionsFile(path, images)
    return {shard.key(i): shard.captions(i) for i in range(len(shard))}


CSV = 'image,caption\none.png,a dog\nsub/two.png,"a ""cat"", sleeping"\none.png,a hound\n'
TSV = 'File_Name\tText\none.png\ta dog\none.png\ta hound\nsub/two.png\t"a ""cat"", sleeping"\n'
JSONL = [
    {"file_name": "one.png", "captions": ["a dog", "a hound"]},
    {"file_name": "sub/two.png", "text": 'a "cat", sleeping'},
]
COCO = {
    "images": [{"id": 7, "file_name": "one.png"}, {"id": 3, "file_name": "sub/two.png"}],
    "annotations": [
        {"image_id": 3, "id": 1, "caption": 'a "cat", sleeping\n'},
        {"image_id": 7, "id": 2, "caption": "a dog"},
        {"image_id": 7, "id": 3, "caption": "a hound"},
    ],
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", CSV),
        ("bom.csv", "\ufeff" + CSV),
        ("windows.csv", CSV.replace("\n", "\r\n")),
        ("p.tsv", TSV),
        ("p.jsonl", "\n".join(map(json.dumps, JSONL)) + "\n\n"),
        ("p.json", json.dumps(COCO)),
    ],
)
def test_captions_of_a_image_are_kept_together(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode())
    assert read(folder / name) == WANTED
    source = PairSource(folder / name)
    assert [(source[i].key, source[i].captions) for i in range(2)] == list(WANTED.items())
    assert source[1].image.size == (24, 24)
    assert source[0].shard == f"{folder.name}/{name}"


def test_images_elsewhere(folder: Path, tmp_path: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists/p.csv").write_text(CSV)
    assert len(PairSource(folder / "lists/p.csv", images=folder)[0].captions) == 2


def test_damage_costs_only_its_image(folder: Path) -> None:
    lines = ["image,caption", "one.png,a dog", "gone.png,a cat", "blank.png, ", "none.png", "old.png,K\xe4tzchen"]
    (folder / "p.csv").write_bytes("\n".join(lines).encode("latin-1"))
    source = PairSource(folder / "p.csv")
    reasons = []
    for i in range(len(source)):
        try:
            reasons.append(source[i].captions)
        except BadSample as damage:
            reasons.append((damage.key, damage.reason))
    assert reasons == [
        ("a dog",),
        ("gone.png", MISSING_IMAGE),
        ("blank.png", EMPTY_CAPTION),
        ("none.png", MISSING_CAPTION),
        ("old.png", ENCODING),
    ]


def test_a_coco_image_without_captions(folder: Path) -> None:
    (folder / "p.json").write_text(json.dumps({**COCO, "annotations": COCO["annotations"][1:]}))
    shard = CaptionsFile(folder / "p.json")
    with pytest.raises(BadSample, match=MISSING_CAPTION):
        shard.captions(1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", '{"images": []}', "COCO"),
        ("p.json", "[1, 2]", "COCO"),
        ("p.json", "{", "COCO"),
        ("p.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "COCO"),
        ("p.json", '{"images": [], "annotations": []}', "names no image"),
        ("p.csv", "", "names no image"),
        ("p.csv", "photo,caption\na.jpg,x\n", "line 2 names no image"),
        ("p.jsonl", '{"image": "a.jpg"}\nnonsense\n', "line 2 is not a JSON object"),
        ("p.jsonl", '{"image": 3}\n', "line 1 names no image"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        CaptionsFile(tmp_path / name)


def test_real_captions(shared: Path) -> None:
    annotations = json.loads((shared / "data/coco/annotations/captions_val2017.json").read_text())
    source = PairSource(
        shared / "data/coco/annotations/captions_val2017.json", images=shared / "data/coco/images/val2017"
    )
    assert len(source) == len(annotations["images"])
    pair = source[0]
    (image,) = [image for image in annotations["images"] if image["file_name"] == pair.key]
    assert pair.image.size == (image["width"], image["height"])
    captions = [a["caption"].strip() for a in annotations["annotations"] if a["image_id"] == image["id"]]
    assert list(pair.captions) == list(dict.fromkeys(captions))
