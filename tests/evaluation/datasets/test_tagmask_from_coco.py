"""Words to categories, COCO's masks, and the set that comes of both."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from ttd.cli import cli
from ttd.errors import InputError
from ttd.evaluation.datasets.coco import CocoMasks, captions_by_image, instance_mask, unpack_runs
from ttd.evaluation.datasets.converters import object_maps
from ttd.evaluation.datasets.labels import read_labels
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.datasets.tagmask_from_coco import WordList, singulars
from ttd.text.words import split_words


@pytest.fixture(scope="module")
def words() -> WordList:
    return WordList.read()


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("Two men ride motorcycles", {"men": "person", "motorcycles": "motorcycle"}),
        ("A hot dog on a plate", {"hot": "hot dog", "dog": "hot dog"}),
        ("a dog near a traffic light", {"dog": "dog", "traffic": "traffic light", "light": "traffic light"}),
        ("tennis rackets and knives", {"tennis": "tennis racket", "rackets": "tennis racket", "knives": "knife"}),
        ("toilet paper by the toilet", {"toilet": "toilet"}),
        ("children on benches with sandwiches", {"children": "person", "benches": "bench", "sandwiches": "sandwich"}),
        ("teddy bears and buses", {"teddy": "teddy bear", "bears": "teddy bear", "buses": "bus"}),
        ("puppies", {"puppies": "dog"}),
        ("an orange cat", {"cat": "cat"}),
        ("grass and glass", {"grass": "grass-merged"}),
    ],
)  # fmt: skip
def test_plurals_synonyms_and_compounds(caption: str, named: dict[str, str], words: WordList) -> None:
    tokens = [word.text.lower() for word in split_words(caption)]
    found = {token: meant for token, meant in zip(tokens, words.find(tokens), strict=True) if meant}
    assert found == {token: frozenset({category}) for token, category in named.items()}


def test_toilet_paper_names_no_toilet(words: WordList) -> None:
    assert words.find(["toilet", "paper"]) == [frozenset(), frozenset()]


def test_every_category_of_the_sample_has_a_name(words: WordList, shared: Path) -> None:
    known = frozenset[str]().union(*words.names.values())
    for name in ("instances", "panoptic"):
        categories = json.loads((shared / f"data/coco/annotations/{name}_val2017.json").read_text())["categories"]
        assert {category["name"] for category in categories} <= known


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_a_word_is_always_its_own_form(word: str) -> None:
    assert singulars(word)[0] == word
    assert all(singulars(word))


def pack(runs: list[int]) -> str:
    """The inverse of `unpack_runs`, as COCO's documentation describes it."""
    packed = ""
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            packed += chr((bits | 32 if more else bits) + 48)
    return packed


@given(st.lists(st.integers(0, 100_000), max_size=20))
def test_packed_runs_come_back(runs: list[int]) -> None:
    assert unpack_runs(pack(runs)) == runs


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths_go_down_the_columns(packed: bool) -> None:
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = mask[0, 2] = True
    counts: Any = [4, 3, 5]
    assert np.array_equal(instance_mask({"counts": pack(counts) if packed else counts, "size": [3, 4]}, (3, 4)), mask)
    with pytest.raises(InputError, match="do not fill"):
        instance_mask({"counts": [1], "size": [3, 4]}, (3, 4))


def test_polygons_cover_whole_pixels() -> None:
    expected = np.zeros((10, 12), bool)
    expected[2:7, 3:9] = True
    assert np.array_equal(instance_mask([[3, 2, 9, 2, 9, 7, 3, 7]], (10, 12)), expected)
    assert instance_mask([[-5, -5, 50, -5, 50, 50, -5, 50]], (10, 12)).all()
    with pytest.raises(InputError, match="reaches more than 120 pixels away"):
        instance_mask([[3, 2, 9e9, 2, 9, 7, 3, 7]], (10, 12))


@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=3))
def test_polygons_by_counting_crossings(corners: list[tuple[float, float]]) -> None:
    """Away from the edges, where COCO's tool rounds in its own way."""
    drawn = instance_mask([[value for corner in corners for value in corner]], (20, 20))
    ends = np.array(corners), np.roll(np.array(corners), -1, axis=0)
    for row, column in ((0, 0), (3, 17), (10, 10), (19, 4)):
        centre = np.array((column + 0.5, row + 0.5))
        along = ends[1] - ends[0]
        lengths = np.maximum((along**2).sum(1), 1e-12)
        nearest = ends[0] + along * np.clip(((centre - ends[0]) * along).sum(1) / lengths, 0, 1)[:, None]
        if np.hypot(*(nearest - centre).T).min() < 1.5:
            continue
        inside = False
        for (x1, y1), (x2, y2) in zip(*ends, strict=True):
            if (y1 > centre[1]) != (y2 > centre[1]):
                inside ^= x1 + (centre[1] - y1) * (x2 - x1) / (y2 - y1) < centre[0]
        assert drawn[row, column] == inside


def test_polygons_are_coco_s_own(shared: Path) -> None:
    """All instances of the sample, one by one, as COCO's own tool fills them."""
    found = json.loads((shared / "data/coco/annotations/instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
    for annotation in found["annotations"]:
        height, width = sizes[annotation["image_id"]]
        runs = annotation["segmentation"]
        runs = coco_mask.frPyObjects(runs, height, width)
        expected = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs)
        assert np.array_equal(instance_mask(annotation["segmentation"], (height, width)), expected.astype(bool))


def test_polygons_agree_with_the_panoptic_masks_of_the_sample(shared: Path) -> None:
    folder = shared / "data/coco/annotations"
    instances, panoptic = (CocoMasks(folder / f"{name}_val2017.json") for name in ("instances", "panoptic"))
    both = sorted(set(instances.images) & set(panoptic.images))[:8]
    hit = union = 0
    for number in both:
        theirs = panoptic.masks(number)
        for name, mask in instances.masks(number).items():
            if name in theirs and mask.sum() > 500:
                hit += int((mask & theirs[name]).sum())
                union += int((mask | theirs[name]).sum())
    assert union > 0
    assert hit / union > 0.9


def write_coco(root: Path) -> None:
    """Two images of blocks; the second image's file is missing."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 8, "width": 8} for n in (1, 2)]
    categories = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}, {"id": 10, "name": "traffic light"}]
    square = [[0, 0, 8, 0, 8, 4, 0, 4]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 18, "segmentation": square},
        {"id": 2, "image_id": 1, "category_id": 10, "segmentation": {"counts": [56, 8], "size": [8, 8]}},
        {"id": 3, "image_id": 2, "category_id": 17, "segmentation": square},
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))
    captions = ["A kitchen.", "A cat and dogs at a traffic light.", "The dog", "A cat."]
    rows = [{"id": i, "image_id": 2 if i == 3 else 1, "caption": text} for i, text in enumerate(captions)]
    (root / "captions.json").write_text(json.dumps({"annotations": rows}))
    (root / "val").mkdir()
    Image.new("RGB", (8, 8)).save(root / "val" / f"{1:012d}.jpg")


def test_a_set_from_coco(tmp_path: Path) -> None:
    write_coco(tmp_path)
    arguments = ["data", "tagmask-from-coco", "--captions", tmp_path / "captions.json"]
    arguments += ["--masks", tmp_path / "instances.json", "--images", tmp_path / "val"]
    done = CliRunner().invoke(cli, [*map(str, arguments), "--out", str(tmp_path / "one")], prog_name="ttd")
    assert done.exit_code == 1  # one image is missing
    assert "2: " in done.stderr
    data = read_tagmask(tmp_path / "one")
    (row,) = data.rows
    assert row.sample.id == f"{1:012d}-1"
    assert row.words == ("a", "cat", "and", "dogs", "at", "a", "traffic", "light", ".")
    assert row.true == {"dogs", "traffic", "light"}
    assert data.vocabulary == ("cat", "dog")
    assert row.present == {"dog"}
    assert row.nouns == {"cat", "dogs", "traffic", "light"}
    mask = row.mask()
    assert mask[:3].all()
    assert mask[:, 7].all()
    assert not mask[6:, :7].any()
    every = [*map(str, arguments), "--every-caption", "--out", str(tmp_path / "all")]
    assert CliRunner().invoke(cli, every, prog_name="ttd").exit_code == 1
    assert [row.caption for row in read_tagmask(tmp_path / "all").rows] == [
        "A cat and dogs at a traffic light.",
        "The dog",
    ]


def test_prepared_label_maps_are_the_usual_ones(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data/coco/annotations"
    content = json.loads((folder / "instances_val2017.json").read_text())
    content["images"] = content["images"][:15]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    arguments = ["data", "prepare", "coco-object", "--annotations", str(tmp_path / "instances.json")]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "maps")], prog_name="ttd")
    assert done.exit_code == 0, done.output
    written = sorted((tmp_path / "maps").iterdir())
    assert len(written) == 15
    same = [(read_labels(path) == read_labels(folder / "val2017" / path.name)).mean() for path in written]
    assert np.mean(same) > 0.995


def test_the_panoptic_set_makes_no_object_maps(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(InputError, match="80 objects"):
        object_maps(shared / "data/coco/annotations/panoptic_val2017.json", tmp_path)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    arguments = ["data", "tagmask-from-coco", "--captions", tmp_path / "captions.json", "--images", tmp_path / "val"]
    arguments += ["--out", tmp_path / "out", "--masks", tmp_path / "captions.json"]
    done = CliRunner().invoke(cli, [*map(str, arguments)], prog_name="ttd")
    assert done.exit_code == 2
    assert 'has no "images": give COCO\'s official annotations' in done.stderr


def test_swapped_and_damaged_annotations_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / "instances.json"
    with pytest.raises(InputError, match=r"not the COCO file that is expected here \(at 'caption'\)"):
        captions_by_image(path)
    content = json.loads(path.read_text())
    damaged, image = content["annotations"][0], content["annotations"][0]["image_id"]
    path.write_text(json.dumps({**content, "annotations": [{**damaged, "iscrowd": "x"}]}))
    with pytest.raises(InputError, match=f"annotation {damaged['id']} has iscrowd 'x'"):
        CocoMasks(path).label_map(image, ["dog", "traffic light"])
    for change in ({"segmentation": [["x"]]}, {"segmentation": [[1, 2, 3]]}, {"category_id": 999}):
        path.write_text(json.dumps({**content, "annotations": [{**damaged, **change}]}))
        with pytest.raises(InputError, match=f"annotation {damaged.get('id')}"):
            CocoMasks(path).masks(image)
    del content["images"][0]["height"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="'height'"):
        CocoMasks(path)


SQUARE = [[10, 10, 40, 10, 40, 40, 10, 40]]


def masks_of(tmp_path: Path, *annotations: dict[str, Any]) -> CocoMasks:
    """An image of 96 x 64 pixels with these annotations of class 1 (dog), where they say no other."""
    rows = [{"id": n, "image_id": 1, "category_id": 1, **given} for n, given in enumerate(annotations, 1)]
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 96, "height": 64}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return CocoMasks(tmp_path / "instances.json")


@pytest.mark.parametrize("more", [{}, {"area": None}, {"area": float("nan")}, {"area": "900"}, {"area": 0}])
@pytest.mark.parametrize("crowd", [{}, {"iscrowd": None}, {"iscrowd": 0}, {"iscrowd": False}])
def test_without_an_area_the_mask_says_which_is_smaller(tmp_path: Path, more: Any, crowd: Any) -> None:
    large = {"segmentation": [[0, 0, 96, 0, 96, 64, 0, 64]], "category_id": 2, **more, **crowd}
    small = {"segmentation": SQUARE, **more, **crowd}
    for order in ((large, small), (small, large)):
        labels = masks_of(tmp_path, *order).label_map(1, ["dog", "cat"])
        assert (labels == 1).sum() == 900
        assert (labels == 2).sum() == 96 * 64 - 900
    labels = masks_of(tmp_path, small, {**large, "iscrowd": 1}).label_map(1, ["dog", "cat"])
    assert (labels == 1).sum() == 900


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "annotation 1: it has no segmentation, only a box"),
        (None, "it has no segmentation"),
        ({}, "it has no segmentation"),
        ([[10, 10], [40, 10], [40, 40], [10, 40]], "one of its polygons has 2 numbers"),
        ([[[10, 10], [40, 10], [40, 40]]], "one of its polygons has 6 numbers"),
        ([10, 10, 40, 10, 40, 40], "is not a list of polygons"),
        ([*SQUARE, []], "one of its polygons has 0 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "one of its polygons has 7 numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "annotation 1 is damaged"),
        ("polygon", "is not a list of polygons"),
        ({"counts": [0, 96 * 64], "size": [96, 64]}, "for an image of 64x96 pixels, and this is 96x64"),
        ({"counts": [0, 48 * 128], "size": [128, 48]}, "for an image of 48x128 pixels"),
        ({"counts": [96 * 64 + 5, -5], "size": [64, 96]}, "annotation 1 is damaged"),
        ({"size": [64, 96]}, "annotation 1 is damaged"),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(tmp_path: Path, segmentation: Any, message: str) -> None:
    masks = masks_of(tmp_path, {"segmentation": segmentation, "area": 900, "iscrowd": 0}, {"segmentation": SQUARE})
    for read in (lambda: masks.label_map(1, ["dog", "cat"]), lambda: masks.masks(1)):
        with pytest.raises(InputError, match=message):
            read()


def test_too_small_and_outside_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for polygon in ([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], [[200, 200, 300, 200, 300, 300]]):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            labels = masks_of(tmp_path, {"segmentation": polygon}, {"segmentation": SQUARE}).label_map(1, ["dog"])
        assert "annotation 1 covers no pixel of its image" in caplog.text
        assert labels.sum() == 900


def test_annotations_of_images_that_are_not_listed_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        masks = masks_of(tmp_path, {"segmentation": SQUARE}, {"image_id": 7}, {"image_id": 7})
    assert "left out 2 annotations of images that the file does not list" in caplog.text
    assert masks.masks(1)["dog"].sum() == 900


def test_captions_that_are_no_text_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Any] = [None, ["a cat", "a bird"], float("nan"), "a dog", {"raw": "x"}]
    content = {"annotations": [{"id": n, "image_id": 1, "caption": caption} for n, caption in enumerate(rows)]}
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert captions_by_image(tmp_path / "captions.json") == {1: [(1, "a bird"), (1, "a cat"), (3, "a dog")]}
    assert "left out 3 captions that are not text" in caplog.text


def test_the_sample_of_coco(tmp_path: Path, shared: Path) -> None:
    folder = shared / "data/coco"
    arguments = ["--captions", folder / "annotations/captions_val2017.json", "--images", folder / "images/val2017"]
    arguments += ["--masks", folder / "annotations/panoptic_val2017.json", "--limit", 12, "--out", tmp_path / "set"]
    done = CliRunner().invoke(cli, ["data", "tagmask-from-coco", *map(str, arguments)], prog_name="ttd")
    assert done.exit_code == 0, done.output
    data = read_tagmask(tmp_path / "set")
    assert len(data.rows) >= 10
    for row in data.rows:
        size = Image.open(row.sample.image).size
        assert row.mask().shape == size[::-1]
        assert row.true
        assert row.mask().any()
