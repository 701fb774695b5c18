from __future__ import annotations

import json
import logging
import unicodedata
from pathlib import Path

import pytest

from tests.data.samples import image
from ttd.data.bad_samples import (
    BROKEN_JSON,
    BROKEN_LINE,
    EMPTY_CAPTION,
    ENCODING,
    MISSING_CAPTION,
    MISSING_IMAGE,
    BadSample,
)
from ttd.data.captions_file import CaptionsFile
from ttd.data.items import open_items
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
        ("p.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "names no image"),
        ("p.json", '{"images": [], "annotations": []}', "names no image"),
        ("p.json", '{"images": [{"id": 1, "file_name": null}], "annotations": []}', "file_name. is not a text"),
        ("p.json", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1}]}', "caption"),
        ("p.csv", "", "names no image"),
        ("p.csv", "photo,caption\na.jpg,x\n", "its header is 'photo,caption'"),
        ("p.jsonl", '{"image": "a.jpg"}\nnonsense\n', "line 2 is not (JSON|an object)"),
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


def outcomes(source: PairSource) -> dict[str, object]:
    """Captions, or the reason why there are none, by key."""
    found: dict[str, object] = {}
    for i in range(len(source)):
        try:
            found[source.locate(i)[1]] = source[i].captions
        except BadSample as damage:
            found[damage.key] = damage.reason
    return found


def test_what_is_no_caption_in_coco_s_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    captions = [None, ["a cat", "a bird"], float("nan"), 3, {"raw": "a dog"}, ["a cat", None], "", None]
    for i in range(len(captions)):
        (tmp_path / f"{i}.png").write_bytes(image(i))
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(captions))],
        "annotations": [
            *({"id": i, "image_id": i, "caption": caption} for i, caption in enumerate(captions)),
            {"id": 90, "image_id": len(captions) - 1, "caption": "a dog"},
            {"id": 91, "image_id": 77, "caption": "of an image that is not listed"},
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        source = PairSource(tmp_path / "p.json")
    assert "left out 1 captions of images that the file does not list" in caplog.text
    assert "left out 6 captions that are not text" in caplog.text
    assert outcomes(source) == {
        "0.png": MISSING_CAPTION,
        "1.png": ("a cat", "a bird"),
        "2.png": MISSING_CAPTION,
        "3.png": BROKEN_JSON,
        "4.png": BROKEN_JSON,
        "5.png": BROKEN_JSON,
        "6.png": EMPTY_CAPTION,
        "7.png": ("a dog",),
    }


def test_a_line_that_is_no_row_is_a_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(image(0))
    (tmp_path / "1.png").write_bytes(image(1))
    (tmp_path / "p.csv").write_text("caption,image\na dog, a cat,0.png\na red car,1.png\na boat,\n")
    source = PairSource(tmp_path / "p.csv")
    assert outcomes(source) == {"line 2": BROKEN_LINE, "1.png": ("a red car",), "line 4": BROKEN_LINE}
    with pytest.raises(BadSample, match=r"line 2.*has 3 fields and the header 2: put the caption into quotes"):
        source[0]
    items = open_items(str(tmp_path / "p.csv"), tags=("dog",))
    with pytest.raises(BadSample, match=r"line 4.*names no image"):
        items[2].read()
    assert items[1].read().size == (24, 24)


def test_web_addresses_are_missing_images_whose_captions_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "Train.tsv").write_text("a bus\thttp://example.org/1.jpg\na dog\thttps://example.org/2\n")
    source = PairSource(tmp_path / "Train.tsv")
    assert [source.captioned(i).captions for i in range(2)] == [("a bus",), ("a dog",)]
    with pytest.raises(BadSample, match="missing image: a web address: fetch the images first"):
        source[0]
    with pytest.raises(BadSample, match="a web address"):
        open_items(str(tmp_path / "Train.tsv"))[1].read()


@pytest.mark.parametrize(("on_disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_and_backslashes_name_the_same_file(tmp_path: Path, on_disk: str, listed: str) -> None:
    (tmp_path / "sub").mkdir()
    name = "caf\u00e9 \u00c5.png"
    (tmp_path / "sub" / unicodedata.normalize(on_disk, name)).write_bytes(image(0))
    (tmp_path / "plain.png").write_bytes(image(1))
    rows = [f"sub\\{unicodedata.normalize(listed, name)},a dog", f"sub/{unicodedata.normalize(on_disk, name)},a cat"]
    (tmp_path / "p.csv").write_text("\n".join(["image,caption", *rows, ".\\plain.png,a hat", "..\\plain.png,out"]))
    found = outcomes(PairSource(tmp_path / "p.csv"))
    assert list(found.values()) == [("a dog",), ("a cat",), ("a hat",), MISSING_IMAGE]
    assert open_items(str(tmp_path / "p.csv"))[0].read().size == (24, 24)


def test_ids_are_texts_or_whole_numbers(tmp_path: Path) -> None:
    lines = [{"image": f"{i}.png", "caption": "a dog", "id": one} for i, one in enumerate([7, "x", ["y"], 1.5, True])]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = open_items(str(tmp_path / "p.jsonl"))
    assert [item.id for item in items] == ["7", "x", "2.png", "3.png", "4.png"]
    for item in items[2:]:
        with pytest.raises(BadSample, match='"id" is neither'):
            _ = item.captions
