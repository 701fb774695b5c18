"""Folders and lists of data sets as people have them: copies of other programs, endings, links, lists of paths."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import image
from tests.evaluation.layouts import write
from ttd.errors import InputError
from ttd.evaluation.datasets.converters import annotation_files
from ttd.evaluation.datasets.layouts import OWN_FOLDER, find_samples
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.registry import DATASETS


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image(0) if data is None else data)
    return path


def own(root: Path) -> dict[str, tuple[str, bool, str, bool]]:
    """By id: the names of image and label file, and whether they are there."""
    samples, _ = find_samples(root, ("",), OWN_FOLDER)
    return {s.id: (s.image.name, s.image.is_file(), s.truth[0].name, s.truth[0].is_file()) for s in samples}


def test_copies_of_other_programs_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "ade20k")
    for folder, ending in (("images", "png"), ("annotations", "png")):
        home = tmp_path / "ADEChallengeData2016" / folder / "validation"
        for name in (".ipynb_checkpoints/item0-checkpoint", "._item0", "@eaDir/item0", "__MACOSX/item1", ".Trash/x"):
            put(home / f"{name}.{ending}")
    data = DATASETS.find("ade20k")
    with caplog.at_level(logging.WARNING):
        samples, _ = find_samples(tmp_path, data.folders, data.layouts)
    assert [sample.id for sample in samples] == ["item0", "item1", "item2"]
    assert "left out 5 hidden" in caplog.text


def test_endings_in_any_case_and_of_every_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.jpg", "c.PNG", "e.tif", "f.bmp", "g.JPEG", "sub/h.JP2", "i.webp", "j.gif"]
    for name in names:
        put(tmp_path / "images" / name)
        put((tmp_path / "labels" / name).with_suffix(".PNG" if name.startswith("c") else ".png"))
    put(tmp_path / "images" / "lonely.png")
    put(tmp_path / "labels" / "notes.txt")
    with caplog.at_level(logging.WARNING):
        found = own(tmp_path)
    assert sorted(found) == sorted(name.rsplit(".", 1)[0] for name in names)
    assert {pair[0] for pair in found.values()} == {Path(name).name for name in names}
    assert all(there and label_there for _, there, _, label_there in found.values())
    assert "left out 1 images that have no label map" in caplog.text


@pytest.mark.parametrize(("on_disk", "listed"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_taken_apart(tmp_path: Path, on_disk: str, listed: str) -> None:
    put(tmp_path / "images" / unicodedata.normalize(on_disk, "caf\u00e9.jpg"))
    put(tmp_path / "labels" / unicodedata.normalize(listed, "caf\u00e9.png"))
    ((image, image_there, label, label_there),) = own(tmp_path).values()
    names = [unicodedata.normalize("NFC", name) for name in (image, label)]
    assert (*names, image_there, label_there) == ("caf\u00e9.jpg", "caf\u00e9.png", True, True)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "real", "cityscapes raw")
    for part in ("leftImg8bit", "gtFine"):
        (tmp_path / "set" / part / "val").mkdir(parents=True)
        (tmp_path / "set" / part / "val" / "bonn").symlink_to(tmp_path / "real" / part / "val" / "bonn")
        (tmp_path / "set" / part / "val" / "loop").symlink_to(tmp_path / "set" / part / "val")
    data = DATASETS.find("cityscapes")
    samples, _ = find_samples(tmp_path / "set", data.folders, data.layouts)
    assert [sample.id for sample in samples] == [f"bonn/item{n}" for n in range(3)]
    assert all(sample.image.is_file() for sample in samples)
    put(tmp_path / "set/gtFine/val/.hidden/x_gtFine_labelIds.png")
    assert len(annotation_files(tmp_path / "set/gtFine", "*_gtFine_*", "x")) == 3


VOC_LINES = [
    "2007_000001",
    "2007_000001 1",
    "2007_000001.jpg",
    "/JPEGImages/2007_000001.jpg /SegmentationClass/2007_000001.png",
    "JPEGImages/2007_000001.jpg SegmentationClass/2007_000001.png",
    "JPEGImages/2007_000001.jpg\tSegmentationClass/2007_000001.png",
]


def voc(root: Path, line: str) -> tuple[str, bool, bool]:
    put(root / "JPEGImages/2007_000001.jpg")
    put(root / "SegmentationClass/2007_000001.png")
    put(root / "ImageSets/Segmentation/val.txt", f"{line}\n\n".encode())
    data = DATASETS.find("voc")
    ((sample,), _) = find_samples(root, data.folders, data.layouts)
    return sample.id, sample.image.is_file(), sample.truth[0].is_file()


@pytest.mark.parametrize("line", VOC_LINES)
def test_lists_of_ids_and_of_paths(tmp_path: Path, line: str) -> None:
    assert voc(tmp_path, line) == ("2007_000001", True, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png", "names the label map"),
        ("/JPEGImages/2007_000001.jpg /SegmentationClass/2007_000002.png", "names the label map"),
        ("/elsewhere/2007_000001.jpg", "leads out of its folder"),
        ("/JPEGImages/../../x.jpg", "leads out of its folder"),
    ],
)
def test_lists_that_lead_elsewhere_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        voc(tmp_path, line)


def test_hidden_files_are_no_part_of_a_tagmask_set(tmp_path: Path) -> None:
    for name in ("1", "._1"):
        put(tmp_path / "image" / f"{name}.jpg")
        put(tmp_path / "json_refined" / f"{name}.json", b'{"caption": "a dog", "true": ["dog"]}')
        put(tmp_path / "mask_using_HQ-SAM/1" / f"{name}.png")
    (row,) = read_tagmask(tmp_path).rows
    assert row.sample.id == "1"
    assert [path.name for path in row.sample.truth] == ["1.png"]


def test_the_label_of_a_list_may_end_in_capitals(tmp_path: Path) -> None:
    put(tmp_path / "JPEGImages/2007_000001.JPG")
    put(tmp_path / "SegmentationClass/2007_000001.PNG")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "SegmentationClass/2007_000001.PNG")
    assert (tmp_path / "JPEGImages/2007_000001.JPG").is_file()
    put(tmp_path / "ImageSets/Segmentation/val.txt", b"2007_000001\n")
    data = DATASETS.find("voc")
    ((sample,), _) = find_samples(tmp_path, data.folders, data.layouts)
    assert (sample.image.is_file(), sample.truth[0].is_file()) == (True, True)
