"""Cityscapes' label maps of 19 classes, from the original ids or from the polygons.

Polygons are drawn in the order of the file, later ones over earlier ones, as the data set's own script does
(github.com/mcordts/cityscapesScripts, preparation/json2labelImg.py): what is deleted or has a negative id is left
out, a group ("cargroup") counts as its kind, and what no polygon covers does not count.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ttd.benchmarks.label_files import read_labels
from ttd.benchmarks.label_rules import apply_rule, cityscapes_ids
from ttd.benchmarks.making_maps import MapJob, annotation_files
from ttd.benchmarks.metrics import IGNORED
from ttd.benchmarks.number_names import read_numbers
from ttd.errors import InputError
from ttd.images import MAX_PIXELS

_CLASSES = 19
_IDS, _POLYGONS, _MADE = "_labelIds.png", "_polygons.json", "_labelTrainIds.png"


def train_id_maps(source: Path, folder: Path) -> list[MapJob]:
    """`*_gtFine_labelTrainIds.png` under `folder` for every frame under `source`: 0 to 18, 255 does not count.

    A frame is read from its `_gtFine_labelIds.png`, without one from its `_gtFine_polygons.json`.
    """
    jobs = []
    for path in annotation_files(source, "*_gtFine_*", "gtFine's files (the folder of a split, or of one city)"):
        frame = path.name.removesuffix(_IDS).removesuffix(_POLYGONS)
        if path.name.endswith(_IDS):
            make = partial(_from_ids, path)
        elif path.name.endswith(_POLYGONS) and not path.with_name(frame + _IDS).is_file():
            make = partial(from_polygons, path)
        else:
            continue
        jobs.append(MapJob(frame, folder / path.relative_to(source).with_name(frame + _MADE), make))
    if not jobs:
        raise InputError(f"{source} holds no *_gtFine{_IDS} and no *_gtFine{_POLYGONS}: get gtFine_trainvaltest again")
    return jobs


def _from_ids(path: Path) -> np.ndarray:
    return apply_rule(read_labels(path), cityscapes_ids(_CLASSES), path)


def from_polygons(path: Path) -> np.ndarray:
    """The labels of one polygons file, uint8 [H,W].

    Raises:
        InputError: damaged, or it names a label that Cityscapes does not have.
    """
    try:
        content = json.loads(path.read_bytes())
        size, objects = (int(content["imgWidth"]), int(content["imgHeight"])), content["objects"]
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            raise ValueError
        image = Image.new("L", size, IGNORED)
        draw = ImageDraw.Draw(image)
        for thing in objects:
            label = None if thing.get("deleted") else _label(str(thing["label"]), path)
            if label is not None:
                draw.polygon(_corners(thing["polygon"]), fill=label)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is no polygons file of Cityscapes, or damaged: get it again") from None
    return np.asarray(image)


def _corners(polygon: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in polygon]


def _label(name: str, path: Path) -> int | None:
    """The train id of a name, 255 where it is not evaluated; None where it is not drawn."""
    names = _numbers()
    known = name if name in names else name.removesuffix("group")
    if known not in names:
        raise InputError(f"{path} names the label {name!r}, which Cityscapes does not have")
    number = names[known]
    return None if number < 0 else int(cityscapes_ids(_CLASSES)[number])


@cache
def _numbers() -> dict[str, int]:
    return {name: number for number, name in read_numbers("cityscapes").items()}
