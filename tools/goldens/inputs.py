"""Writes what the goldens read, once for both trees: `python -m tools.goldens.inputs FOLDER`.

FOLDER already holds `scenes` (shards) and `tagmask`, written by the base's `ttd scenes write`. The rest comes from the
helpers of the tests: the layouts of data sets in tiny, and small models with seeded random weights.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.evaluation import layouts
from tests.evaluation.tasks.test_multilabel import write_coco, write_nus
from tests.evaluation.tasks.test_referring import runs, write_refer
from tests.tiny_models import tiny_clip_model, tiny_tcl_tensors
from tools.goldens.plan import BENCHMARKS
from ttd.encoders.loading.tokenizers import clip_tokenizer

PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco"
SCENES = 3
NUMBERS = (139, 724)  # of COCO's validation photos
DRAWN = ("a dog on the grass beside a lake", "a red car in front of a house and a tree")


def photos(folder: Path) -> dict[str, str]:
    """Two photos of the shared sample as PNG, else two drawn ones; their names and captions."""
    found = {}
    paths = [PHOTOS / "images" / "val2017" / f"{number:012d}.jpg" for number in NUMBERS]
    if all(path.is_file() for path in paths):
        said = json.loads((PHOTOS / "annotations" / "captions_val2017.json").read_text("utf-8"))["annotations"]
        for i, (number, path) in enumerate(zip(NUMBERS, paths, strict=True)):
            Image.open(path).convert("RGB").save(folder / f"photo{i}.png")
            found[f"photo{i}"] = min((a["id"], a["caption"]) for a in said if a["image_id"] == number)[1].strip()
        return found
    rng = np.random.default_rng(0)
    for i, caption in enumerate(DRAWN):
        size = (240, 320) if i else (310, 250)
        y, x = np.mgrid[: size[0], : size[1]]
        waves = [127 + 90 * np.sin(x / (30 + 9 * c) + y / (50 - 7 * c) + i) for c in range(3)]
        values = np.stack(waves, -1) + rng.normal(0, 12, (*size, 3))
        values[(y - 120) ** 2 + (x - 100) ** 2 < 60**2] = (200, 90, 40)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"photo{i}.png")
        found[f"photo{i}"] = caption
    return found


def write_images(root: Path) -> None:
    """`images/`, and beside it lists of them, with captions and with words; `few-`: of one scene and one photo."""
    folder = root / "images"
    folder.mkdir()
    truths = [json.loads(line) for line in (root / "tagmask" / "tags.jsonl").read_text("utf-8").splitlines()]
    captions = {}
    for i, truth in enumerate(truths[:SCENES]):
        Image.open(root / "tagmask" / "images" / f"{truth['id']}.png").save(folder / f"scene{i}.png")
        captions[f"scene{i}"] = truth["caption"]
    captions |= photos(folder)
    tags = {name: ["dog", "grass", "water"] for name in captions}
    tags |= {f"scene{i}": [*truth["present"][:4], "dog"] for i, truth in enumerate(truths[:SCENES])}
    for path, field, values in (("images.jsonl", "caption", captions), ("tags.jsonl", "tags", tags)):
        records = [{"id": name, "image": f"images/{name}.png", field: values[name]} for name in captions]
        lines = [json.dumps(record) + "\n" for record in records]
        (root / path).write_text("".join(lines), "utf-8")
        (root / f"few-{path}").write_text(lines[0] + lines[SCENES], "utf-8")


def write_folder(root: Path) -> None:
    """The tagmask scenes as an own set: a class for every word that has a mask, the later word above."""
    out = root / "folder"
    masks = sorted((root / "tagmask" / "masks").glob("*/*.png"))
    classes = ["background", *sorted({path.stem for path in masks})]
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True)
    for folder in sorted({path.parent for path in masks}):
        image = Image.open(root / "tagmask" / "images" / f"{folder.name}.png")
        labels = np.zeros((image.height, image.width), np.uint8)
        for path in sorted(folder.glob("*.png")):
            labels[np.asarray(Image.open(path).convert("L")) > 0] = classes.index(path.stem)
        image.save(out / "images" / f"{folder.name}.png")
        Image.fromarray(labels).save(out / "labels" / f"{folder.name}.png")
    (out / "classes.txt").write_text("\n".join(classes) + "\n", "utf-8")


def write_expressions(root: Path) -> None:
    """The tagmask scenes as a RefCOCO: an expression for every word that has a mask."""
    folder = root / "refcoco" / "refcoco"
    (folder / "train2014").mkdir(parents=True)
    images, annotations, refs = [], [], []
    for number, path in enumerate(sorted((root / "tagmask" / "images").glob("*.png"))):
        with Image.open(path) as image:
            size = {"height": image.height, "width": image.width}
        shutil.copy(path, folder / "train2014")
        images.append({"id": number, "file_name": path.name, **size})
        for word in sorted((root / "tagmask" / "masks" / path.stem).glob("*.png")):
            key, mask = len(annotations), np.asarray(Image.open(word).convert("L")) > 0
            segmentation = {"counts": runs(mask), "size": list(mask.shape)}
            annotations.append({"id": key, "image_id": number, "category_id": 1, "segmentation": segmentation})
            sentences = [{"sent_id": key, "sent": f"the {word.stem}"}]
            refs.append({"image_id": number, "ann_id": key, "split": "val", "sentences": sentences})
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}), "utf-8")
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))


def main(root: Path) -> None:
    """Fills `root`."""
    torch.set_num_threads(1)
    write_images(root)
    write_folder(root)
    for name in BENCHMARKS:
        if name in layouts.LAYOUTS:
            layouts.write(root / name, name)
    write_coco(root / "coco-80")
    write_nus(root / "nus-wide")
    write_expressions(root)
    for name, by in (("refcoco+", "unc"), ("refcocog", "umd")):
        write_refer(root / name, name, by)
    tiny_clip_model().save_pretrained(root / "tiny-clip")
    clip_tokenizer().save_pretrained(root / "tiny-clip")
    save_file(tiny_tcl_tensors(), root / "tiny-tcl.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
