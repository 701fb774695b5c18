"""Label maps of COCO's 80 objects from its instances, for the benchmark `coco-object`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ttd.atomic import whole_file
from ttd.benchmarks.classes import read_classes
from ttd.benchmarks.coco_annotations import CocoMasks
from ttd.errors import InputError


def write_label_maps(masks: CocoMasks, folder: Path) -> int:
    """Writes `NAME_instanceTrainIds.png` for every picture, those that are there aside; gives how many there are.

    Raises:
        InputError: the categories are not COCO's 80 objects.
    """
    categories = read_classes("coco-object").titles[1:]
    if stray := sorted(masks.categories - set(categories)):
        raise InputError(f"{stray[0]!r} is none of COCO's 80 objects: give instances_*.json, not the panoptic set")
    for image, name in tqdm(masks.images.items(), desc="label maps", disable=None):
        path = folder / f"{Path(name).stem}_instanceTrainIds.png"
        if not path.exists():
            with whole_file(path) as part:
                Image.fromarray(masks.label_map(image, categories)).save(part, format="PNG")
    return len(masks.images)
