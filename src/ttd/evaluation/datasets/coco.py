"""COCO's annotations: captions, and a mask for each category of an image, from instances or the panoptic set."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ttd.data.rows import read_coco_json
from ttd.data.shard import texts_of
from ttd.errors import InputError
from ttd.files.safe_paths import check_path
from ttd.files.schema import is_number
from ttd.images import opened

log = logging.getLogger(__name__)


class CocoMasks:
    """Masks by category name of the images of one annotations file.

    An annotation that is not a mask of its image (boxes only, lists of points, run lengths of another size) is refused;
    one that is too small to cover a pixel is named in the log.

    Args:
        path: `instances_*.json` or `panoptic_*.json`.
        segments: the folder of the panoptic PNG files; None: beside the JSON file, with its name.
    """

    def __init__(self, path: Path, segments: Path | None = None) -> None:
        content = read_coco_json(path, ("images", "annotations", "categories"))
        self._found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        with _complete(path):
            self._names = {int(c["id"]): _text(c["name"]) for c in content["categories"]}
            self._sizes = {int(i["id"]): (int(i["height"]), int(i["width"])) for i in content["images"]}
            self.images = {int(i["id"]): check_path(i["file_name"], path, "file_name") for i in content["images"]}
            for annotation in content["annotations"]:
                self._found[int(annotation["image_id"])].append(annotation)
                if "segments_info" in annotation:
                    check_path(annotation["file_name"], path, "file_name")
        if strange := [number for number in self._found if number not in self.images]:
            count = sum(len(self._found[number]) for number in strange)
            log.warning("%s: left out %d annotations of images that the file does not list.", path, count)
        self.categories = frozenset(self._names.values())
        self._segments = segments or path.with_suffix("")

    def masks(self, image: int) -> dict[str, np.ndarray]:
        """Category name -> bool [H,W]; raises `InputError` where a segmentation is unusable."""
        found: dict[str, np.ndarray] = {}
        for annotation in self._found[image]:
            for category, mask in self._parts(annotation, self._sizes[image]):
                name = self._names[category]
                found[name] = found[name] | mask if name in found else mask
        return {name: mask for name, mask in found.items() if mask.any()}

    def label_map(self, image: int, categories: Sequence[str]) -> np.ndarray:
        """Instances as numbers, uint8 [H,W]: 0 is background, n the n-th of `categories`; a smaller object covers
        a larger one, and crowds are below all.
        """
        labels = np.zeros(self._sizes[image], np.uint8)
        parts = [
            (_is_crowd(annotation), _area(annotation, mask), category, mask)
            for annotation in self._found[image]
            for category, mask in self._parts(annotation, self._sizes[image])
        ]
        for _, _, category, mask in sorted(parts, key=lambda part: (-part[0], -part[1])):
            labels[mask] = 1 + categories.index(self._names[category])
        return labels

    def _parts(self, annotation: dict[str, Any], size: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
        """Categories and their masks; raises `InputError` where one is damaged or has another size than the image."""
        try:
            parts = self._read_parts(annotation, size)
        except InputError as error:
            raise InputError(f"annotation {annotation.get('id')}: {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError):
            raise InputError(f"annotation {annotation.get('id')} is damaged: download the file again") from None
        if any(mask.shape != size or category not in self._names for category, mask in parts):
            raise InputError(f"annotation {annotation.get('id')} does not fit the image and its categories")
        if empty := sum(not mask.any() for _, mask in parts):
            of = f" in {empty} of its {len(parts)} segments" if len(parts) > 1 else ""
            log.warning("annotation %s covers no pixel of its image%s: it is left out.", annotation.get("id"), of)
        return parts

    def _read_parts(self, annotation: dict[str, Any], size: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
        if "segments_info" not in annotation:
            return [(int(annotation["category_id"]), instance_mask(annotation["segmentation"], size))]
        path = self._segments / str(annotation["file_name"])
        try:
            with path.open("rb") as file:
                colours = np.asarray(opened(file).convert("RGB")).astype(np.int64)
        except (OSError, SyntaxError):
            raise InputError(f"{path} is missing or damaged: download the panoptic PNG files again") from None
        numbers = colours @ np.array([1, 256, 65536])
        return [(int(s["category_id"]), numbers == int(s["id"])) for s in annotation["segments_info"]]


def _is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether it is a crowd; nothing, or null, says no."""
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise InputError(f"annotation {annotation.get('id')} has iscrowd {crowd!r}: it must be 0 or 1")
    return bool(crowd)


def _area(annotation: dict[str, Any], mask: np.ndarray) -> float:
    """Its area in pixels: as it says, else that of its mask."""
    area = annotation.get("area")
    return float(area) if area is not None and is_number(area) and area > 0 else float(mask.sum())


def captions_by_image(path: Path) -> dict[int, list[tuple[int, str]]]:
    """Image -> (id, caption) in the order of ids, from `captions_*.json`; what is not text is counted in the log."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    rows = read_coco_json(path, ("annotations",))["annotations"]
    left_out = 0
    with _complete(path):
        for row in rows:
            image, number, texts = int(row["image_id"]), int(row["id"]), texts_of(row["caption"])
            left_out += texts is None
            found[image] += [(number, text) for text in texts or ()]
    if left_out:
        log.warning("%s: left out %d captions that are not text (null or numbers).", path, left_out)
    return {image: sorted(rows) for image, rows in sorted(found.items())}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}, which is not text")
    return value


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Turns what a missing entry of `path` raises into a sentence."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not the COCO file that is expected here (at {error}): check its name") from None


def instance_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons, or run lengths (plain or packed), as a mask: bool [H,W].

    Raises:
        InputError: there is none, it is for an image of another size, or a polygon has less than three corners.
        ArithmeticError, LookupError, TypeError, ValueError: it is damaged.
    """
    if not segmentation:
        raise InputError("it has no segmentation, only a box: give annotations with masks")
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        stated = segmentation.get("size")
        if stated is not None and tuple(stated) != size:
            raise InputError(
                f"its run lengths are for an image of {stated[1]}x{stated[0]} pixels, and this is {size[1]}x{size[0]}: "
                "get the annotations of these images"
            )
        runs = np.array(unpack_runs(counts) if isinstance(counts, str) else counts, np.int64)
        if runs.sum() != size[0] * size[1]:
            raise InputError("run lengths do not fill the image: download the annotations again")
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return values.reshape(size[1], size[0]).T  # COCO counts down the columns
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        raise InputError("its segmentation is not a list of polygons [[x1, y1, x2, y2, x3, y3, ...], ...]: convert it")
    polygons = []
    for polygon in segmentation:
        numbers = np.array(polygon, np.float64)
        if numbers.ndim != 1 or len(numbers) < 6 or len(numbers) % 2:
            raise InputError(
                f"one of its polygons has {numbers.size} numbers: a polygon is [x1, y1, x2, y2, x3, y3, ...], three "
                "corners or more"
            )
        if not np.isfinite(numbers).all():
            raise ValueError
        polygons.append(numbers.reshape(-1, 2))
    return polygons_mask(polygons, size)


def polygons_mask(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons, each float (x, y) corners [N,2], as COCO's own tool fills them: bool [H,W].

    Raises:
        InputError: a corner is more than ten images away: the tool walks along every edge, so a damaged number would
            take hours and all memory.
    """
    height, width = size
    most = 10 * max(size)
    if any((np.abs(corners) > most).any() for corners in polygons):
        raise InputError(
            f"one of its polygons reaches more than {most} pixels away from an image of {width}x{height}: get the "
            "annotations of these images"
        )
    runs = coco_mask.frPyObjects([corners.ravel().tolist() for corners in polygons], height, width)
    return np.asarray(coco_mask.decode(coco_mask.merge(runs)), bool)


def unpack_runs(packed: str) -> list[int]:
    """COCO's packed run lengths: 5 bits per character, from the third run on the difference to the last but one.

    Not by pycocotools, which trusts the text: damaged text writes outside its memory and ends the process.
    """
    runs: list[int] = []
    at = 0
    while at < len(packed):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(packed[at]) - 48
            value |= (bits & 31) << shift
            more = bool(bits & 32)
            at, shift = at + 1, shift + 5
            if not more and bits & 16:
                value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs
