"""Derived label maps, one PNG file per image, made from the official annotations of Cityscapes, COCO and PASCAL
Context."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from ttd.data.listing import walk
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_classes, read_numbers
from ttd.evaluation.datasets.coco import CocoMasks
from ttd.evaluation.datasets.labels import apply_rule, cityscapes_ids, coco_stuff_ids, read_labels
from ttd.evaluation.datasets.layouts import LabelMapFile
from ttd.evaluation.metrics import IGNORED
from ttd.files.documents import read_json
from ttd.files.schema import count, each, either, entries, fields, flag, integer, text, within
from ttd.images import MAX_PIXELS
from ttd.runs import FileToMake, MadeFiles, make_files


def make_maps(jobs: Sequence[LabelMapFile]) -> MadeFiles:
    """Writes every label map that is not there yet; see `make_files`."""
    units = [FileToMake(job.name, job.out, partial(_write_labels, job)) for job in jobs]
    with tqdm(total=len(units), desc="label maps", disable=None) as bar:
        return make_files(units, skip=True, progress=bar.update)


def _write_labels(job: LabelMapFile, path: Path) -> None:
    Image.fromarray(job.make().astype(np.uint8)).save(path, format="PNG")


def annotation_files(folder: Path, pattern: str, what: str) -> list[Path]:
    """The files of a folder and its folders, ordered by path.

    Raises:
        InputError: `folder` is none, or holds none of them.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: --annotations must be the one that holds {what}")
    if not (found := [path for path in walk(folder).files if fnmatchcase(path.name, pattern)]):
        raise InputError(f"{folder} holds no {pattern}: --annotations must be the folder that holds {what}")
    return found


_CLASSES = 19
_IDS, _POLYGONS, _MADE = "_labelIds.png", "_polygons.json", "_labelTrainIds.png"


def train_id_maps(source: Path, folder: Path) -> list[LabelMapFile]:
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
        jobs.append(LabelMapFile(frame, folder / path.relative_to(source).with_name(frame + _MADE), make))
    if not jobs:
        raise InputError(
            f"{source} holds no *_gtFine{_IDS} and no *_gtFine{_POLYGONS}: download gtFine_trainvaltest again"
        )
    return jobs


def _from_ids(path: Path) -> np.ndarray:
    return apply_rule(read_labels(path), cityscapes_ids(_CLASSES), path)


_CORNER = entries(within(-(1 << 20), 1 << 20), within(-(1 << 20), 1 << 20))
_POLYGONS_FILE = fields(
    {
        "imgWidth": within(1, 1 << 16, integer),
        "imgHeight": within(1, 1 << 16, integer),
        "objects": each(fields({"label": text, "polygon": each(_CORNER)}, {"deleted": either(flag, count)})),
    }
)


def from_polygons(path: Path) -> np.ndarray:
    """The labels of one polygons file, uint8 [H,W].

    Raises:
        InputError: damaged, or it names a label that Cityscapes does not have.
    """
    content = read_json(path, _POLYGONS_FILE, remedy="download Cityscapes' polygons again")
    size = content["imgWidth"], content["imgHeight"]
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{path} describes an image of {size[0]}x{size[1]} pixels: download Cityscapes' polygons again"
        )
    image = Image.new("L", size, IGNORED)
    draw = ImageDraw.Draw(image)
    for thing in content["objects"]:
        label = None if thing.get("deleted") else _label(thing["label"], path)
        if label is None:
            continue
        if len(thing["polygon"]) < 2:
            raise InputError(f"{path}: a polygon has less than two corners: download Cityscapes' polygons again")
        draw.polygon([(float(x), float(y)) for x, y in thing["polygon"]], fill=label)
    return np.asarray(image)


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


def object_maps(source: Path, folder: Path) -> list[LabelMapFile]:
    """`NAME_instanceTrainIds.png` in `folder` for every image: 0 is background, 1 to 80 are the objects.

    Raises:
        InputError: the categories are not COCO's 80 objects.
    """
    masks = CocoMasks(source)
    categories = read_classes("coco-object").titles[1:]
    if stray := sorted(masks.categories - set(categories)):
        raise InputError(f"{stray[0]!r} is not one of COCO's 80 objects: give instances_*.json, not the panoptic set")
    return [
        LabelMapFile(
            name, folder / f"{Path(name).stem}_instanceTrainIds.png", partial(masks.label_map, image, categories)
        )
        for image, name in masks.images.items()
    ]


def stuff_maps(source: Path, folder: Path) -> list[LabelMapFile]:
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
        LabelMapFile(path.name, folder / path.relative_to(source).with_name(f"{path.stem}_labelTrainIds.png"),
               partial(make, path))
        for path in files
    ]  # fmt: skip


_MATRIX = "LabelMap"
_UNKNOWN = 255
_NUMBERS = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "double", "single")
# The page's own 59_labels.txt calls three classes by other names than its labels.txt.
_OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def context_maps(source: Path, folder: Path, labels: str | Path = "context459") -> list[LabelMapFile]:
    """`ID.png` in `folder` for every `ID.mat` (or, without any, every `ID.png`) under `source`: 0 is background, 1 to
    59 are the classes of `context60` in its order.

    Args:
        source: holds the annotations.
        folder: for `SegmentationClassContext`.
        labels: what the stored numbers mean, see `read_numbers`.
    """
    table = class_table(read_numbers(labels))
    pattern = "*.mat" if any(path.suffix == ".mat" for path in walk(source).files) else "*.png"
    found = annotation_files(source, pattern, "PASCAL Context's .mat files (trainval) or label images")
    read = read_label_map if pattern == "*.mat" else read_labels

    def make(path: Path) -> np.ndarray:
        return to_classes(read(path), table, path)

    return [LabelMapFile(path.stem, folder / f"{path.stem}.png", partial(make, path)) for path in found]


def class_table(names: dict[int, str]) -> np.ndarray:
    """Stored number -> class of `context60`, uint8; 255 for numbers that mean nothing, 0 for what is background.

    Raises:
        InputError: one of the 59 classes has no number.
    """
    wanted = {_plain(title): number for number, title in enumerate(read_classes("context60").titles) if number}
    table = np.full(max(names) + 1, _UNKNOWN, np.uint8)
    table[0] = 0
    for number, name in names.items():
        if number > 0:
            plain = _plain(name)
            table[number] = wanted.get(_OTHER_NAMES.get(plain, plain), 0)
    if missing := sorted(set(wanted.values()) - set(table.tolist())):
        title = read_classes("context60").titles[missing[0]]
        raise InputError(f"the list of labels has no {title!r}: give PASCAL Context's labels.txt")
    return table


def to_classes(values: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    """Classes, uint8 [H,W], of stored numbers [H,W]; raises `InputError` at a number that means nothing."""
    if values.size and (values.min() < 0 or values.max() >= len(table)):
        raise InputError(f"{path} holds numbers {values.min()} to {values.max()}, the list of labels ends at "
                         f"{len(table) - 1}: give the list that belongs to it (--labels)")  # fmt: skip
    classes = table[values]
    if (classes == _UNKNOWN).any():
        stray = int(values[classes == _UNKNOWN][0])
        raise InputError(f"{path} holds the number {stray}, which the list of labels does not name")
    return np.asarray(classes)


def read_label_map(path: Path) -> np.ndarray:
    """The matrix `LabelMap` of a MATLAB file (version 5 to 7.2), int64 [H,W].

    Raises:
        InputError: missing, damaged, another version, no such matrix of whole numbers.
    """
    from scipy.io import loadmat, whosmat

    try:
        with path.open("rb") as stream:
            shape, kind = {name: (shape, kind) for name, shape, kind in whosmat(stream)}.get(_MATRIX, ((), ""))
            # Checked before the matrix is read: a header may claim anything.
            if kind not in _NUMBERS or len(shape) != 2 or not 0 < shape[0] * shape[1] <= MAX_PIXELS:
                raise InputError(f"{path} has no matrix {_MATRIX} of numbers: it is not one of PASCAL Context's files")
            stream.seek(0)
            values = np.asarray(loadmat(stream, variable_names=[_MATRIX])[_MATRIX])
    except (InputError, MemoryError):
        raise
    # The reader raises anything on damaged files: ValueError, TypeError, zlib.error, NotImplementedError ...
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} is not a MATLAB file of version 5 to 7.2, or damaged ({reason}): download it again"
        ) from error
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise InputError(f"{path}: {_MATRIX} must hold whole numbers")
    return whole


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
