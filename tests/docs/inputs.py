"""The files that the pages take for granted, small, under the names that the pages use."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.samples import json_bytes, write_tar
from tests.data.test_image_table import write as write_table
from tests.docs.left_out import reason
from tests.docs.pages import ROOT, SHELL, commands, read_blocks
from tests.evaluation import layouts
from tests.evaluation.datasets.test_converters import box, frame, mat
from tests.evaluation.oracle import save
from tests.evaluation.tasks.test_multilabel import write_coco, write_nus
from tests.evaluation.tasks.test_referring import write_refer
from tests.evaluation.tasks.test_tagmask import write_set
from tests.tiny_models import write_tiny_clip
from ttd.scenes import Scenes

CAPTIONS = ("a dog on the grass", "two cats near a table", "a man with a red umbrella", "a boat by the sea")
VOC_SIDE = 48
Run = Callable[[str], None]
"""Runs a line of shell in the page's folder; an error ends the test."""


def prepare(page: str, folder: Path, clients: Path, run: Run, model: str = "") -> None:
    """Fills the folder that a page's blocks run in; adapters are made for `model` in place of the page's."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [command.line for block in read_blocks(page) if block.kind == SHELL for command in commands(block)]
    if any(line.startswith(("make ", "pip install -e ")) for line in lines):
        _clone(folder, clients)
    if page in _OF_A_PAGE:
        _OF_A_PAGE[page](folder, run, model)


def _clone(folder: Path, clients: Path) -> None:
    """The repository with a finished `.venv`: that of this test, whose programs start without delay."""
    for name in ("src", "tests", "experiments", "speed", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    (folder / ".venv/bin").mkdir(parents=True)
    for client in clients.iterdir():
        (folder / ".venv/bin" / client.name).symlink_to(client)
    for name in ("ruff", "mypy"):
        (folder / ".venv/bin" / name).symlink_to(Path(sys.executable).parent / name)
    (folder / ".venv/.installed").touch()


def scene(number: int, side: int = 64) -> Image.Image:
    """An image with something to see in it."""
    return Image.fromarray(Scenes("test")[number].image).resize((side, side))


def photo(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene(number).save(path)


def photos(folder: Path) -> None:
    """A folder of images with their captions beside them."""
    for number in range(3):
        photo(folder / f"{number}.jpg", number)
        (folder / f"{number}.txt").write_text(CAPTIONS[number] + "\n", "utf-8")


def shards(folder: Path, count: int, pairs: int) -> None:
    """`count` shards with `pairs` pairs in all, in the first of them."""
    folder.mkdir(parents=True)
    each = -(-pairs // count)
    for number in range(count):
        samples = {}
        for pair in range(number * each, min((number + 1) * each, pairs)):
            image = folder / "image.png"
            scene(pair).save(image)
            caption = CAPTIONS[pair % len(CAPTIONS)].encode()
            samples[f"{pair:09d}"] = {"png": image.read_bytes(), "txt": caption, "json": json_bytes({"key": pair})}
            image.unlink()
        write_tar(folder / f"{number:05d}.tar", samples)


def coco_captions(folder: Path, count: int) -> None:
    """`captions_val2017.json` and `val2017`; the first image has the number of COCO's own first."""
    ids = [139, *range(1000, 999 + count)]
    images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids]
    for number, image in enumerate(images):
        photo(folder / "val2017" / str(image["file_name"]), number)
    rows = [
        {"id": 10 * i + k, "image_id": i, "caption": f"{CAPTIONS[(i + k) % len(CAPTIONS)]}, {k}"}
        for i in ids
        for k in (0, 1)
    ]
    (folder / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": rows}))


def voc(folder: Path) -> None:
    layouts.write(folder, "voc", 2)
    for kind in ("JPEGImages", "SegmentationClass"):  # at the size of small photos
        for path in (folder / "VOCdevkit/VOC2012" / kind).iterdir():
            Image.open(path).resize((VOC_SIDE, VOC_SIDE), Image.Resampling.NEAREST).save(path)


def adapter(run: Run, model: str, out: str) -> None:
    """An adapter of `model`, trained for one step."""
    run(
        f"ttd train adapter-pairs --model {model} --set optimiser.steps=1 --set augment.shortest=64"
        f" --set augment.longest=64 --set augment.crop=64 --set run.watch_every=0 --set data.workers=0 --out {out}"
    )


def _readme(folder: Path, run: Run, model: str) -> None:
    photo(folder / "photo.jpg")
    photos(folder / "photos")
    shards(folder / "cc3m", 332, 12)
    voc(folder)


def _annotate(folder: Path, run: Run, model: str) -> None:
    photos(folder / "photos")


def _app(folder: Path, run: Run, model: str) -> None:
    photos(folder / "photos")
    shards(folder / "adapter-pairs", 1, 4)
    adapter(run, model or "clip-vit-b16", "runs/paper")


def _methods(folder: Path, run: Run, model: str) -> None:
    for number, name in enumerate((285, 126107, 214753, 269314, 423617)):
        photo(folder / f"{name:012d}.jpg", number)


def _benchmarks(folder: Path, run: Run, model: str) -> None:
    voc(folder)
    shards(folder / "adapter-pairs", 1, 4)
    adapter(run, model or "tcl", "runs/ttd")
    write_coco(folder)  # annotations/instances_val2017.json, val2017
    instances = json.loads((folder / "annotations/instances_val2017.json").read_text())
    for annotation in instances["annotations"]:
        annotation |= {"segmentation": [[0, 0, 8, 0, 8, 8, 0, 8]], "area": 64, "iscrowd": 0}
    for image in instances["images"]:
        image |= {"width": 32, "height": 24}
    (folder / "annotations/instances_val2017.json").write_text(json.dumps(instances))
    save(np.arange(48, dtype=np.uint8).reshape(6, 8) % 11, folder / "stuffthingmaps/val2017/000000000001.png")
    polygons = folder / "gtFine/val/bonn/bonn_0_1_gtFine_polygons.json"
    polygons.parent.mkdir(parents=True)
    polygons.write_text(json.dumps(frame([("road", box(0, 4, 11, 7))])))
    mat(folder / "trainval/2008_000001.mat", np.full((6, 8), 2, np.uint16))
    _panoptic(folder, instances["images"])
    rows = [{"id": i, "image_id": one["id"], "caption": "A dog on grass."} for i, one in enumerate(instances["images"])]
    (folder / "captions_val2017.json").write_text(json.dumps({"images": instances["images"], "annotations": rows}))
    write_coco(folder / "COCO")
    write_nus(folder / "NUS-WIDE")
    write_refer(folder / "REFER")
    (folder / "set").mkdir()
    write_set(folder / "set", 2)
    for name, root in (
        ("voc", "voc"), ("coco-object", "coco"), ("ade20k", "layouts/ade"), ("cityscapes", "layouts/cityscapes"),
    ):  # fmt: skip
        layouts.write(folder / "DATA" / root, name)
    write_coco(folder / "DATA/coco")
    write_tiny_clip(folder / "random-vit-b16")


def _panoptic(folder: Path, images: list[dict[str, object]], size: tuple[int, int] = (24, 32)) -> None:
    """One segment for each image (height, width), of a thing that a caption names."""
    dog = {"id": 18, "name": "dog", "isthing": 1}
    annotations = []
    for image in images:
        name = Path(str(image["file_name"])).stem + ".png"
        value = np.zeros((*size, 3), np.uint8)
        value[:8, :8, 0] = 7
        save(value, folder / "panoptic_val2017" / name)
        annotations.append(
            {"image_id": image["id"], "file_name": name, "segments_info": [{"id": 7, "category_id": 18, "iscrowd": 0}]}
        )
    content = {"images": images, "annotations": annotations, "categories": [dog]}
    (folder / "panoptic_val2017.json").write_text(json.dumps(content))


def _data(folder: Path, run: Run, model: str) -> None:
    shards(folder / "cc3m", 2, 26)  # the page names the pair 000000012 of the first shard
    shards(folder / "cc12m", 2, 8)
    write_table(folder / "flowers/data", "parquet", 3)
    if reason("ttd data tag cc3m/ --tagger spacy"):
        run("ttd data tag cc3m/ --model mini --out nouns")  # words in place of those that are left out
    coco_captions(folder, 6)
    listed = json.loads((folder / "captions_val2017.json").read_text())["images"]
    _panoptic(folder, [{**image, "height": 64, "width": 64} for image in listed], (64, 64))
    (folder / "Train_GCC-training.tsv").write_text("a dog\thttp://example.org/dog.jpg\n", "utf-8")
    (folder / "cc12m.tsv").write_text("http://example.org/dog.jpg\ta dog\n", "utf-8")


def _scale(folder: Path, run: Run, model: str) -> None:
    shards(folder / "cc3m", 3, 9)


def _training(folder: Path, run: Run, model: str) -> None:
    photo(folder / "image.png")
    shards(folder / "cc3m", 332, 12)
    coco_captions(folder, 130)


def _models(folder: Path, run: Run, model: str) -> None:
    shards(folder / "adapter-pairs", 1, 4)
    adapter(run, model or "clip-vit-b16", "my-adapter")


def _photo(folder: Path, run: Run, model: str) -> None:
    photo(folder / "photo.jpg")


_OF_A_PAGE = {
    "README.md": _readme,
    "docs/annotate.md": _annotate,
    "docs/app.md": _app,
    "docs/benchmarks.md": _benchmarks,
    "docs/methods.md": _methods,
    "docs/data.md": _data,
    "docs/first-five-minutes.md": _photo,
    "docs/models.md": _models,
    "docs/python.md": _photo,
    "docs/scale.md": _scale,
    "docs/training.md": _training,
}
