"""Label maps as people have them: VOC's colours in another order, ADE20K's classes reduced, photos with orientation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import Eval
from tests.evaluation.oracle import Oracle, blocks, painted, save
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_classes
from ttd.evaluation.datasets.labels import (
    AS_STORED,
    BY_COLOUR,
    ORIENTATIONS,
    apply_rule,
    oriented,
    read_labels,
    read_voc_labels,
    voc_palette,
)
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.tasks.segmentation import ClassSegmentation

TRUE = np.array([[0, 12, 15, 255], [0, 12, 15, 255], [1, 20, 0, 0]], np.uint8)


def with_palette(values: np.ndarray, palette: np.ndarray) -> Image.Image:
    made = Image.fromarray(values.astype(np.uint8)).convert("P")
    made.putdata(values.ravel().tolist())
    made.putpalette(palette.astype(np.uint8).ravel().tolist())
    return made


def reordered(values: np.ndarray, order: np.ndarray) -> Image.Image:
    """The same colours, as an optimiser stores them: number n stands for the value `order[n]`."""
    back = {value: number for number, value in enumerate(order.tolist())}
    return with_palette(np.vectorize(back.__getitem__)(values), voc_palette()[order])


def test_the_colours_of_voc() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 12: (64, 0, 128), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    assert {value: tuple(voc_palette()[value].tolist()) for value in known} == known


@pytest.mark.parametrize("seed", range(4))
def test_voc_s_colours_in_another_order(tmp_path: Path, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(np.unique(TRUE))
    reordered(TRUE, order).save(tmp_path / "a.png")
    values, how = read_voc_labels(tmp_path / "a.png", 21)
    assert np.array_equal(values, TRUE)
    assert how == BY_COLOUR
    Image.open(tmp_path / "a.png").convert("RGB").save(tmp_path / "b.png")
    assert np.array_equal(read_voc_labels(tmp_path / "b.png", 21)[0], TRUE)


@pytest.mark.parametrize(
    ("palette", "how"),
    [
        (voc_palette(), None),
        (np.repeat(np.arange(256)[:, None], 3, 1), AS_STORED),  # greys
        (np.zeros((256, 3), int), AS_STORED),  # all one colour of VOC
        (np.random.default_rng(0).integers(1, 256, (256, 3)), AS_STORED),
    ],
)
def test_other_palettes_are_read_as_they_are_stored(tmp_path: Path, palette: np.ndarray, how: str | None) -> None:
    with_palette(TRUE, palette).save(tmp_path / "a.png")
    values, found = read_voc_labels(tmp_path / "a.png", 21)
    assert np.array_equal(values, TRUE)
    assert found == how


def test_greys_are_numbers_and_other_colours_are_refused(tmp_path: Path) -> None:
    Image.fromarray(TRUE).save(tmp_path / "grey.png")
    values, how = read_voc_labels(tmp_path / "grey.png", 21)
    assert np.array_equal(values, TRUE)
    assert how is None
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="not in VOC's colours"):
        read_voc_labels(tmp_path / "colour.png", 21)


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def test_an_oracle_gets_full_marks_whatever_the_order_and_it_is_said(tmp_path: Path, evaluate: Eval) -> None:
    titles = read_classes("voc").titles
    for number in range(3):
        truth = blocks(np.random.default_rng(number), [1, 12, 15])
        save(painted(truth, len(titles)), tmp_path / f"data/JPEGImages/{number}.png")
        path = tmp_path / f"data/SegmentationClass/{number}.png"
        path.parent.mkdir(exist_ok=True)
        order = np.array([0, 1, 12, 15, 255] if number == 0 else [15, 0, 255, 1, 12])
        full = np.concatenate([order, [value for value in range(256) if value not in order]])
        (with_palette(truth, voc_palette()) if number == 0 else reordered(truth, full)).save(path)
    done = evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default", "--images", 0)
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    assert found["numbers"]["pixel accuracy"] == 1.0
    (note,) = [note for note in found["notes"] if "label maps were read by their colours" in note]
    assert note.startswith("2 ")
    assert note.endswith(": 1, 2.")


def ade(root: Path, maps: list[np.ndarray]) -> ClassSegmentation:
    for number, values in enumerate(maps):
        save(values.astype(np.uint8), root / f"annotations/validation/{number}.png")
        save(np.zeros((*values.shape, 3), np.uint8), root / f"images/validation/{number}.jpg")
    opened = open_benchmark("ade20k", root, Choices("default"))
    assert isinstance(opened, ClassSegmentation)
    return opened


def truths(opened: ClassSegmentation) -> list[Any]:
    found: list[Any] = []
    for number in range(len(opened.samples)):
        try:
            path = opened.samples[number].truth[0]
            table = opened.rule(len(opened.classes))
            found.append(apply_rule(read_labels(path), table, path).ravel().tolist())
        except InputError as error:
            found.append(str(error))
    return found


def test_ade20k_s_labels_are_original_or_reduced(tmp_path: Path) -> None:
    original = ade(tmp_path / "original", [np.array([[0, 1, 150]]), np.array([[0, 2, 3]])])
    assert truths(original) == [[255, 0, 149], [255, 1, 2]]
    assert original.settings()["labels"] == "ade20k"
    reduced = ade(tmp_path / "reduced", [np.array([[0, 1, 149]]), np.array([[255, 2, 3]])])
    assert truths(reduced) == [[0, 1, 149], [255, 2, 3]]
    assert reduced.settings()["labels"] == "identity"
    mixed = truths(ade(tmp_path / "mixed", [np.array([[0, 1, 150]]), np.array([[255, 2, 3]])]))
    assert "holds the label 150" in mixed[0]
    assert mixed[1] == [255, 2, 3]


STORED = np.arange(6, dtype=np.uint8).reshape(2, 3)


def photo(path: Path, orientation: int, shape: tuple[int, int] = (2, 3)) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", shape[::-1]).save(path, exif=exif)
    return path


UPRIGHT = {
    1: STORED, 2: STORED[:, ::-1], 3: STORED[::-1, ::-1], 4: STORED[::-1], 5: STORED.T, 6: np.rot90(STORED, -1),
    7: STORED[::-1, ::-1].T, 8: np.rot90(STORED),
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("choice", ORIENTATIONS)
def test_labels_of_a_photo_that_is_stored_in_another_way(tmp_path: Path, orientation: int, choice: str) -> None:
    path, upright = photo(tmp_path / "a.jpg", orientation), UPRIGHT[orientation]
    # What was drawn on the photo as it is shown stays, where only that fits.
    found, how = oriented(upright, path, path, upright.shape[:2], choice)
    both = orientation in (2, 3, 4)
    if orientation > 4 or orientation == 1:
        assert np.array_equal(found, upright)
        assert how is None
    # What was drawn on the stored pixels is turned where only that fits, or where it is said.
    found, how = oriented(STORED, path, path, upright.shape[:2], choice)
    turned = orientation > 4 or (both and choice == "stored")
    assert np.array_equal(found, upright if turned or orientation == 1 else STORED)
    assert (how is None) == (orientation == 1)
    with pytest.raises(InputError, match="must have the same size"):
        oriented(np.zeros((4, 4)), path, path, upright.shape[:2], choice)


def test_a_square_photo_on_its_side_fits_both_ways(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 6, (3, 3))
    square = np.arange(9).reshape(3, 3)
    assert np.array_equal(oriented(square, path, path, (3, 3))[0], square)
    assert np.array_equal(oriented(square, path, path, (3, 3), "stored")[0], np.rot90(square, -1))


@pytest.mark.parametrize("choice", ORIENTATIONS)
def test_photos_with_orientation_are_measured_and_named(tmp_path: Path, evaluate: Eval, choice: str) -> None:
    titles = ["background", "cat", "dog", "sky"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.txt").write_text("\n".join(titles) + "\n")
    for orientation in (1, 3, 6):
        truth = blocks(np.random.default_rng(orientation), [1, 2, 3])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"data/images/o{orientation}.png"
        path.parent.mkdir(exist_ok=True)
        painted(truth, 4).save(path, exif=exif)
        save(truth, tmp_path / f"data/labels/o{orientation}.png")
    arguments = ("--protocol", "default", "--background", "none", "--images", 0, "--label-orientation", choice)
    done = evaluate(Oracle(titles), "folder", tmp_path / "data", *arguments)
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    assert (found["numbers"]["pixel accuracy"] == 1.0) == (choice == "stored")
    assert any("1 label maps were turned" in note and "o6" in note for note in found["notes"])
    assert any("1 label maps fit their photos both" in note and "o3" in note for note in found["notes"])
