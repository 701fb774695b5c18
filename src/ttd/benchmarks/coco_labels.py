"""COCO's label maps for `coco-object` (80 objects from the instances) and `coco-stuff` (171 classes)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ttd.benchmarks.classes import read_classes
from ttd.benchmarks.coco_annotations import CocoMasks
from ttd.benchmarks.label_files import read_labels
from ttd.benchmarks.label_rules import apply_rule, coco_stuff_ids
from ttd.benchmarks.making_maps import MapJob, annotation_files
from ttd.errors import InputError


def object_maps(masks: CocoMasks, folder: Path) -> list[MapJob]:
    """`NAME_instanceTrainIds.png` in `folder` for every picture: 0 is background, 1 to 80 are the objects.

    Raises:
        InputError: the categories are not COCO's 80 objects.
    """
    categories = read_classes("coco-object").titles[1:]
    if stray := sorted(masks.categories - set(categories)):
        raise InputError(f"{stray[0]!r} is none of COCO's 80 objects: give instances_*.json, not the panoptic set")
    return [
        MapJob(name, folder / f"{Path(name).stem}_instanceTrainIds.png", partial(masks.label_map, image, categories))
        for image, name in masks.images.items()
    ]


def stuff_maps(source: Path, folder: Path) -> list[MapJob]:
    """`ID_labelTrainIds.png` in `folder` for every `ID.png` of `stuffthingmaps`: 0 to 170, 255 does not count.

    Source of the ids 0 to 181 and 255: the README and labels.txt of github.com/nightrome/cocostuff.
    """
    table = coco_stuff_ids(len(read_classes("coco-stuff")))

    def make(path: Path) -> np.ndarray:
        return apply_rule(read_labels(path), table, path)

    files = [path for path in annotation_files(source, "*.png", "stuffthingmaps' PNG files (val2017)")
             if not path.name.endswith("TrainIds.png")]  # fmt: skip
    if not files:
        raise InputError(f"{source} holds derived maps only: give the folder of the original stuffthingmaps")
    return [
        MapJob(path.name, folder / path.relative_to(source).with_name(f"{path.stem}_labelTrainIds.png"),
               partial(make, path))
        for path in files
    ]  # fmt: skip
