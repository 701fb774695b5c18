"""Images with the classes they show, as multi-label data sets give them: COCO's instances and NUS-WIDE's lists."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttd.data.rows import read_coco_json
from ttd.errors import InputError
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.classes import read_classes, read_lines
from ttd.evaluation.datasets.layouts import image_folder
from ttd.files.safe_paths import check_path

COCO_SPLITS = ("val2014", "val2017")
_LABEL_FOLDERS = ("Groundtruth/TestLabels", "Groundtruth/TrainTestLabels", "TestLabels", "TrainTestLabels")
_IMAGE_FOLDERS = ("Flickr", "images", "image", "")
_TABLE = "nus_wid_data.csv"
_TESTS = ("val", "test")
_AGAIN = "get the data set's lists again"


@dataclass(frozen=True)
class LabelledImages:
    """A data set.

    Attributes:
        root: its folder.
        samples: one per image, in the data set's order.
        truth: bool [S,K], which of the K classes each image shows.
        source: which annotations were read, for people.
    """

    root: Path
    samples: Sequence[Sample]
    truth: np.ndarray
    source: str


def read_coco(root: Path, split: str | None = None) -> LabelledImages:
    """COCO's 80 objects: an image shows a class where it has an instance of it, a crowd included.

    Every image of the file counts, those without an object too.

    Args:
        root: holds `annotations/instances_val2014.json` (or 2017) and `val2014`, `images/val2014` or `images`.
        split: of `COCO_SPLITS`; None: the one that is there.

    Raises:
        InputError: nothing or both are there, or the file is another one.
    """
    if split is not None and split not in COCO_SPLITS:
        raise InputError(f"coco-80 has no split {split!r}: choose from {', '.join(COCO_SPLITS)}")
    paths = {name: root / "annotations" / f"instances_{name}.json" for name in COCO_SPLITS}
    there = [split] if split else [name for name, path in paths.items() if path.is_file()]
    if not there:
        raise InputError(f"{root} holds no annotations/instances_val2014.json nor ..._val2017.json: give COCO's folder")
    if len(there) > 1:
        raise InputError(f"{root} holds the annotations of {' and '.join(there)}: choose one with --split")
    path = paths[there[0]]
    content = read_coco_json(path, ("images", "annotations", "categories"))
    column = {name: number for number, name in enumerate(read_classes("coco-80").titles)}
    try:
        classes = {int(c["id"]): column[str(c["name"])] for c in content["categories"]}
        names = {int(i["id"]): check_path(i["file_name"], path, "file_name") for i in content["images"]}
        row = {image: number for number, image in enumerate(names)}
        found = [(row[int(a["image_id"])], classes[int(a["category_id"])]) for a in content["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not fit COCO's 80 objects (at {error}): give the official instances_*.json"
        ) from None
    truth = np.zeros((len(names), len(column)), bool)
    if found:
        truth[tuple(np.array(found).T)] = True
    folder = image_folder([root / f for f in (f"images/{there[0]}", there[0], "images")], names.values())
    return LabelledImages(root, _samples(folder, names.values()), truth, path.name)


def read_nus_wide(root: Path) -> LabelledImages:
    """NUS-WIDE's 81 concepts on its test images, those without a concept too.

    Read are the original layout (`ImageList/TestImagelist.txt` and, for every concept, `Labels_NAME_Test.txt` under
    `Groundtruth/TestLabels` or `Groundtruth/TrainTestLabels`, images under `Flickr`), or the table
    `nus_wid_data.csv` of filepath, label list and split (rows "val" or "test") with which others share a subset.

    Raises:
        InputError: neither is there, or files do not fit together.
    """
    if (root / _TABLE).is_file():
        return _read_table(root)
    listed = next((p for p in (root / "ImageList/TestImagelist.txt", root / "TestImagelist.txt") if p.is_file()), None)
    labels = next((root / f for f in _LABEL_FOLDERS if (root / f / "Labels_airport_Test.txt").is_file()), None)
    if listed is None or labels is None:
        raise InputError(
            f"{root} holds no NUS-WIDE: expected ImageList/TestImagelist.txt with Groundtruth/TestLabels/"
            f"Labels_*_Test.txt, or {_TABLE} (see docs/benchmarks.md)"
        )
    concepts = read_classes("nus-wide").titles
    _check_concepts(root, concepts)
    names = [_listed(line, listed) for line in read_lines(listed, _AGAIN) if line.strip()]
    columns = [_flags(labels / f"Labels_{concept}_Test.txt", len(names)) for concept in concepts]
    folder = image_folder([root / f for f in _IMAGE_FOLDERS], names)
    return LabelledImages(root, _samples(folder, names), np.stack(columns, axis=1), listed.name)


def _read_table(root: Path) -> LabelledImages:
    path = root / _TABLE
    column = {name: number for number, name in enumerate(read_classes("nus-wide").titles)}
    names: list[str] = []
    shown: list[list[int]] = []
    try:
        rows = list(csv.reader(read_lines(path, _AGAIN)))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV ({error}): download the table again") from None
    for number, row in enumerate(rows, 1):
        if len(row) < 3:
            raise InputError(f"{path}, line {number}, has no filepath, labels and split: download the table again")
        if row[2].strip().lower() not in _TESTS:
            continue
        labels = [part.strip(" '\"") for part in row[1].strip(" []").split(",") if part.strip(" '\"")]
        if stray := [label for label in labels if label not in column]:
            raise InputError(f"{path}, line {number}: {stray[0]!r} is not one of NUS-WIDE's 81 concepts")
        names.append(_listed(row[0], f"{path}, line {number}"))
        shown.append([column[label] for label in labels])
    if not names:
        raise InputError(f"{path} lists no image of the split {' or '.join(_TESTS)}: download the table again")
    truth = np.zeros((len(names), len(column)), bool)
    for number, found in enumerate(shown):
        truth[number, found] = True
    folder = image_folder([root / f for f in ("", *_IMAGE_FOLDERS)], names)
    return LabelledImages(root, _samples(folder, names), truth, path.name)


def _listed(text: str, where: object) -> str:
    """An image as the lists name it, some of which were written on Windows."""
    return check_path(text.strip(), where, "image").replace("\\", "/")


def _check_concepts(root: Path, concepts: Sequence[str]) -> None:
    """Where the data set's own list configuration that is next to it, it must be the one that is known here."""
    for path in (root / "Concepts81.txt", root / "ConceptsList" / "Concepts81.txt"):
        if path.is_file():
            theirs = [line.strip() for line in read_lines(path, _AGAIN) if line.strip()]
            if sorted(theirs) != sorted(concepts):
                raise InputError(f"{path} lists other concepts than NUS-WIDE's 81: get the original file")


def _flags(path: Path, count: int) -> np.ndarray:
    """The 0s and 1s of a concept's file, one per image: bool [S]."""
    values = " ".join(read_lines(path, _AGAIN)).split()
    if len(values) != count:
        raise InputError(f"{path} has {len(values)} lines for {count} images: the files belong to different versions")
    if stray := set(values) - {"0", "1"}:
        raise InputError(f"{path} holds {min(stray)!r}: only 0 and 1 were expected")
    return np.asarray(np.array(values) == "1")


def _samples(folder: Path, names: Iterable[str]) -> list[Sample]:
    """One per image; its id is its name in the list.

    Raises:
        InputError: an image is listed twice.
    """
    listed = list(names)
    if len(set(listed)) != len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise InputError(f"the image {twice} is listed twice: get the lists again")
    return [Sample(name, folder / name) for name in listed]
