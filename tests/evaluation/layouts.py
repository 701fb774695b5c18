"""Writes each data set's layout with tiny images: random blocks of some classes, and their label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.evaluation.oracle import blocks, painted, save, without_edges
from ttd.evaluation.datasets.classes import read_classes

CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
# name: benchmark, folder of images, their ending, folder of labels, their ending, list of ids
LAYOUTS = {
    "voc": ("voc", "VOCdevkit/VOC2012/JPEGImages/{}.png", "VOCdevkit/VOC2012/SegmentationClass/{}.png"),
    "voc20": ("voc20", "JPEGImages/{}.png", "SegmentationClass/{}.png"),
    "voc authors": ("voc", "validation/image/{}.png", "validation/mask/{}.png"),
    "context60": ("context60", "VOC2010/JPEGImages/{}.png", "VOC2010/SegmentationClassContext/{}.png"),
    "context59": ("context59", "JPEGImages/{}.png", "SegmentationClassContext/{}.png"),
    "coco-object": ("coco-object", "images/val2017/{}.png", "annotations/val2017/{}_instanceTrainIds.png"),
    "coco 2014": ("coco-object", "val2014/{}.png", "annotations/val2014/{}_instanceTrainIds.png"),
    "coco-stuff": ("coco-stuff", "images/val2017/{}.png", "annotations/val2017/{}_labelTrainIds.png"),
    "coco-stuff raw": ("coco-stuff", "val2017/{}.png", "stuffthingmaps/val2017/{}.png"),
    "ade20k": (
        "ade20k",
        "ADEChallengeData2016/images/validation/{}.png",
        "ADEChallengeData2016/annotations/validation/{}.png",
    ),
    "cityscapes": (
        "cityscapes",
        "leftImg8bit/val/bonn/{}_leftImg8bit.png",
        "gtFine/val/bonn/{}_gtFine_labelTrainIds.png",
    ),
    "cityscapes raw": (
        "cityscapes",
        "leftImg8bit/val/bonn/{}_leftImg8bit.png",
        "gtFine/val/bonn/{}_gtFine_labelIds.png",
    ),
}


def stored(benchmark: str, name: str, labels: np.ndarray) -> np.ndarray:
    """Class numbers (255: not counted) as the label files of this layout hold them."""
    values = np.arange(256)
    if benchmark in ("voc20", "context59", "ade20k"):
        values[:254] = np.arange(254) + 1
        values[255] = 0
    if name == "cityscapes raw":
        values[:19] = CITYSCAPES_IDS
        values[255] = 0
    if name == "coco-stuff raw":
        gaps = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
        values[:171] = [number - 1 for number in range(1, 183) if number not in gaps]
    return values[labels].astype(np.uint8)


def write(root: Path, name: str, count: int = 3, edges: bool = True) -> tuple[str, list[np.ndarray], list[str]]:
    """Writes `count` items; gives the benchmark's name, the truth, and the classes' titles.

    Without `edges`, pixels that touch another class do not count in the truth.
    """
    benchmark, images, labels = LAYOUTS[name]
    titles = read_classes(benchmark).titles
    rng = np.random.default_rng(len(name))
    truths = []
    for number in range(count):
        truth = blocks(rng, [*rng.choice(len(titles), 5), 255])
        image = painted(np.where(truth == 255, 0, truth), len(titles))
        truth = truth if edges else without_edges(truth)
        save(image, root / images.format(f"item{number}"))
        save(stored(benchmark, name, truth), root / labels.format(f"item{number}"))
        truths.append(truth)
    return benchmark, truths, titles
