"""Every file that names other files, with every kind of hostile path: refused in a sentence, and nothing opened.

A reader is given a root that holds one good image, and a text that its file says in the place of that image's path.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.samples import image
from tests.files.test_safe_paths import HOSTILE_NAMES, HOSTILE_PATHS
from ttd.annotate.agreement import agreement
from ttd.annotate.queue import Queue
from ttd.cli.output import Place
from ttd.data.bad_samples import BadSample
from ttd.data.items import open_items
from ttd.data.packing import add_sample, pack
from ttd.data.sources import PairSource
from ttd.errors import InputError, ModelError
from ttd.evaluation.datasets.classes import read_classes
from ttd.evaluation.datasets.coco import CocoMasks
from ttd.evaluation.datasets.layouts import find_samples
from ttd.evaluation.datasets.multilabel import read_coco, read_nus_wide
from ttd.evaluation.datasets.refcoco import read_refer
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.report.finished_run import read_run
from ttd.evaluation.tasks.bias import SingleTagBias
from ttd.registry import DATASETS

_OPENED: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        _OPENED.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hook)


@contextmanager
def nothing_opened_in(folder: Path) -> Iterator[None]:
    """Checks what the interpreter opens in the block."""
    global _watching
    _OPENED.clear()
    _watching = True
    try:
        yield
    finally:
        _watching = False
    real = [os.path.realpath(name) for name in _OPENED if "\0" not in name]
    assert not [name for name in real if Path(name).is_relative_to(folder.resolve())]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """The folder that hostile paths lead to, from the root of a set beside it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("secret.png", "secret.jpg", "secret"):
        (folder / name).write_bytes(image(9))
    return folder


def resolved(text: str, outside: Path) -> str:
    return text.replace("/outside", str(outside), 1) if text.startswith("/outside") else text


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


# ---------------------------------------------------------------- readers of lists and annotations

GOOD = "val2017/good.png"


def _coco(text: object) -> dict[str, Any]:
    """Instances of one image."""
    categories = [{"id": number, "name": name} for number, name in enumerate(read_classes("coco-80").titles)]
    images = [{"id": 1, "file_name": text, "height": 24, "width": 24}]
    instance = {"id": 1, "image_id": 1, "category_id": 1, "area": 4, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    return {"images": images, "annotations": [instance], "categories": categories}


def coco_80(root: Path, text: object) -> object:
    save(root / "annotations" / "instances_val2017.json", _coco(text))
    save(root / "images" / GOOD, image(0))
    return read_coco(root).samples[0].image


def coco_masks(root: Path, text: object) -> object:
    save(root / "instances.json", _coco(text))
    return CocoMasks(root / "instances.json").images


def coco_panoptic(root: Path, text: object) -> object:
    content = _coco("good.png")
    content["annotations"] = [{"id": 1, "image_id": 1, "file_name": text, "segments_info": []}]
    save(root / "panoptic.json", content)
    save(root / "panoptic" / GOOD, image(0))
    return CocoMasks(root / "panoptic.json").masks(1)


def refcoco(root: Path, text: object) -> object:
    ref = {"split": "val", "image_id": 1, "ann_id": 1, "sentences": [{"sent_id": 1, "sent": "a dog"}]}
    save(root / "refcoco" / "refs(unc).p", pickle.dumps([ref], 2))
    save(root / "refcoco" / "instances.json", _coco(text))
    save(root / "train2014" / GOOD, image(0))
    return read_refer("refcoco", root).images[0].sample.image


def nus_table(root: Path, text: object) -> object:
    save(root / "nus_wid_data.csv", f'filepath,label,split_name\n"{text}","[\'sky\']",test\n'.encode())
    save(root / GOOD, image(0))
    return read_nus_wide(root).samples[0].image


def nus_list(root: Path, text: object) -> object:
    save(root / "ImageList" / "TestImagelist.txt", f"{text}\n".encode())
    for concept in read_classes("nus-wide").titles:
        save(root / "Groundtruth" / "TestLabels" / f"Labels_{concept}_Test.txt", b"0\n")
    save(root / "Flickr" / GOOD, image(0))
    return read_nus_wide(root).samples[0].image


def _listed(root: Path, text: object, name: str, split: str) -> object:
    data = DATASETS.find(name)
    save(root / split, f"{text}\n".encode())
    layout = data.layouts[0]
    save(root / layout.images / f"{GOOD}.png", image(0))
    (root / layout.labels).mkdir()
    (sample,) = find_samples(root, data.folders, data.layouts)[0]
    return sample.image


def voc_list(root: Path, text: object) -> object:
    return _listed(root, text, "voc", "ImageSets/Segmentation/val.txt")


def context_list(root: Path, text: object) -> object:
    return _listed(root, text, "context59", "ImageSets/Main/val.txt")


def tagmask_ids(root: Path, text: object) -> object:
    row = {"id": text, "caption": "a dog", "words": ["a", "dog"], "true": ["dog"]}
    save(root / "tags.jsonl", row)
    save(root / "images" / f"{GOOD}.jpg", image(0))
    return read_tagmask(root).rows[0].sample.image


READERS: dict[str, Callable[[Path, object], object]] = {
    one.__name__: one
    for one in (
        coco_80, coco_masks, coco_panoptic, refcoco, nus_table, nus_list, voc_list, context_list, tagmask_ids
    )
}  # fmt: skip
# What a format's own lines cannot say: they end there, or are parted there.
_UNSAYABLE = {
    "nus_table": {"newline", "surrogate"},
    "nus_list": {"empty", "blank", "newline", "surrogate"},
    "voc_list": {"empty", "blank", "newline", "surrogate", "Windows spaces"},
    "context_list": {"empty", "blank", "newline", "surrogate", "Windows spaces"},
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in READERS for kind in HOSTILE_PATHS if kind not in _UNSAYABLE.get(name, ())],
)
def test_a_list_names_no_file_elsewhere(name: str, kind: str, tmp_path: Path, outside: Path) -> None:
    with nothing_opened_in(outside), pytest.raises(InputError, match=r"(correct it|write it again)$") as told:
        READERS[name](tmp_path / "set", resolved(HOSTILE_PATHS[kind], outside))
    assert str(tmp_path / "set") in str(told.value)


@pytest.mark.parametrize("name", READERS)
def test_a_list_names_files_in_subfolders_and_behind_the_users_links(name: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").symlink_to(tmp_path / "real")
    found = READERS[name](tmp_path / "set", GOOD)
    assert not isinstance(found, Path) or found.is_file()


@pytest.mark.parametrize("value", [None, 7, ["x.png"], {"a": 1}])
@pytest.mark.parametrize("name", ["coco_80", "coco_masks", "coco_panoptic", "refcoco"])
def test_what_is_no_text_is_no_path(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a text"):
        READERS[name](tmp_path, value)


# ---------------------------------------------------------------- words as files


def test_words_are_no_paths(tmp_path: Path, outside: Path) -> None:
    """Words of a set that came from elsewhere, for readers of masks/ID/WORD.png."""
    words = ["../../../outside/secret", "..", "dog", "u.s.", "a/b"]
    row = {"id": "1", "caption": " ".join(words), "words": words, "true": words}
    for name in ("one", "two"):
        save(tmp_path / name / "tags.jsonl", row)
        save(tmp_path / name / "images" / "1.jpg", image(0))
        for file in ("dog", "u.s.", "a%2Fb"):
            path = tmp_path / name / "masks" / "1" / f"{file}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 255, np.uint8)).save(path)
    with nothing_opened_in(outside):
        found = agreement(tmp_path / "one", tmp_path / "two")
    assert (found.word_masks, found.word_iou) == (3, 1.0)
    with pytest.raises(InputError, match=r"%2E%2E%2F.*\.png does not exist"):
        SingleTagBias(read_tagmask(tmp_path / "one"), {}, {}, "truth")


# ---------------------------------------------------------------- captions files and shards


def captions_file(folder: Path, kind: str, text: str) -> Path:
    path = folder / f"captions.{kind}"
    names = ("good.png", text)
    if kind == "json":
        images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
        save(path, {"images": images, "annotations": [{"image_id": n, "caption": "a dog"} for n in range(2)]})
    elif kind == "jsonl":
        save(path, "".join(json.dumps({"image": name, "caption": "a dog"}) + "\n" for name in names).encode())
    else:
        save(path, f'image,caption\ngood.png,a dog\n"{text}",a dog\n'.encode("utf-8", "surrogatepass"))
    save(folder / "good.png", image(0))
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@pytest.mark.parametrize("text", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_a_captions_file_shows_no_image_from_elsewhere(text: str, kind: str, tmp_path: Path, outside: Path) -> None:
    """The pair is skipped by name; the others are read."""
    path = captions_file(tmp_path / "set", kind, resolved(text, outside))
    with nothing_opened_in(outside):
        source = PairSource(path)
        assert source[0].image.size == (24, 24)
        with pytest.raises(BadSample, match=r"missing image|broken line: names no image"):
            source[1]


def test_images_in_full_count_within_the_folder_that_the_user_names(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "captions.csv"
    path.write_text(f"image,caption\n{outside / 'secret.png'},a dog\n")
    with pytest.raises(InputError, match=r"are outside .*: name the folder that holds them \(--images\)"):
        PairSource(path)
    assert len(PairSource(path, images=outside)[0].captions) == 1
    assert len(PairSource(path, images=tmp_path)[0].captions) == 1
    path.write_text("image,caption\nsecret.png,a dog\n")
    assert len(PairSource(path, images=tmp_path / "link")[0].captions) == 1  # the user's own link


@pytest.mark.parametrize("kind", ["absolute", "relative", "parent", "Windows relative", "drive", "long", "itself"])
def test_keys_of_shards_are_never_paths(kind: str, tmp_path: Path, outside: Path) -> None:
    """Packed again and queued for annotation, what is written is named by number or digest."""
    key = resolved(HOSTILE_PATHS[kind], outside)
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate((f"{key}/x", f"{key}/y")):
            add_sample(tar, name, "png", image(number), "a dog", {"captions": ["a dog"], "source": key})
    before = sorted(tmp_path.rglob("*"))
    source = PairSource(tmp_path / "data")
    assert len(source) == 2
    pack(source, tmp_path / "packed")
    made = {path for path in tmp_path.rglob("*") if path not in before}
    home = (tmp_path / "packed", tmp_path / "data" / "0.tar.index")
    assert all(path in home or path.parent == home[0] for path in made)
    assert [item.id.rsplit("-", 1)[1].isalnum() for item in Queue(source).items] == [True, True]
    again = PairSource(tmp_path / "packed")
    assert [again[number].key for number in range(2)] == ["000000000", "000000001"]


# ---------------------------------------------------------------- runs and lists of the command line


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_runs_benchmark_names_its_page_of_images(name: str, tmp_path: Path) -> None:
    model = {"name": "mini", "adapter": None, "fingerprint": "0"}
    settings = {"model": model, "data": {"root": "data", "fingerprint": "0"}, "protocol": "default"}
    save(tmp_path / "results.json", {"benchmark": name, "measured": 1, "numbers": {}, "settings": settings})
    with pytest.raises(InputError, match=r"results\.json: the benchmark .* cannot name a file"):
        read_run(tmp_path)


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_ids_of_a_list_name_images_in_the_output_folder(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = Place(out).for_item(name)
    assert place.folder is not None
    path = place.folder / f"{place.stem}-words.png"
    assert Path(os.path.normpath(path)).is_relative_to(out / "images")
    assert max(len(os.fsencode(part)) for part in path.parts) <= 255
    if name != HOSTILE_PATHS["deep"]:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")


@pytest.mark.parametrize("kind", ["parent", "itself", "NUL", "long", "long in bytes", "deep"])
def test_a_listed_image_that_cannot_be_is_said(kind: str, tmp_path: Path) -> None:
    save(tmp_path / "list.jsonl", {"image": HOSTILE_PATHS[kind], "caption": "a dog"})
    (item,) = open_items(str(tmp_path / "list.jsonl"))
    with pytest.raises(InputError, match=r"is a folder|does not exist|cannot be read"):
        item.read()


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_a_models_files_lie_beside_it(name: str, tmp_path: Path, outside: Path) -> None:
    from ttd.encoders.loading.formats import check_references, read_card, recognise
    from ttd.encoders.loading.weights import index_shards

    text = resolved(name, outside)
    save(tmp_path / "ttd.json", {"format": 1, "kind": "clip", "vocabulary": text})
    with pytest.raises(ModelError, match='"vocabulary" must name a file in the same folder'):
        read_card(tmp_path)
    (tmp_path / "ttd.json").unlink()
    save(tmp_path / "config.json", {"model_type": "clip"})
    for file in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        save(tmp_path / file, {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": text}})
        with nothing_opened_in(outside), pytest.raises(ModelError, match=rf'{file} has no "weight_map" of names'):
            index_shards(tmp_path / file)
        with nothing_opened_in(outside), pytest.raises(ModelError):
            recognise(tmp_path)
        with nothing_opened_in(outside), pytest.raises(ModelError, match='has no "weight_map" of names'):
            check_references(tmp_path)
        (tmp_path / file).unlink()


BASES = ["/outside", "../outside", "..", "", "org/other-model", "C:\\outside", "x\0y", "x" * 300]


@pytest.mark.parametrize("base", BASES)
def test_the_base_that_an_adapter_names_is_words_only(base: str, tmp_path: Path, outside: Path) -> None:
    """The base is what the user names; the adapter's own word for it opens nothing and changes nothing."""
    from tests.encoders.loading.test_adapters import differences, make_adapter, outputs
    from tests.tiny_models import tiny_clip
    from ttd.encoders.loading.adapters import attach_adapter
    from ttd.encoders.loading.formats import Card, write_card

    save(outside / "config.json", {"model_type": "clip"})
    save(outside / "model.safetensors", b"no tensors")
    folder = make_adapter(tmp_path / "set" / "adapter")
    plain, named = tiny_clip(), tiny_clip()
    attach_adapter(plain, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = resolved(base, outside)
    save(folder / "adapter_config.json", config)
    write_card(folder, Card("clip", base=resolved(base, outside)))
    with nothing_opened_in(outside):
        attach_adapter(named, folder)
    assert not any(differences(outputs(plain), outputs(named)))


def test_an_adapter_that_names_code_is_refused(tmp_path: Path) -> None:
    from tests.encoders.loading.test_adapters import make_adapter
    from tests.tiny_models import tiny_clip
    from ttd.encoders.loading.adapters import attach_adapter

    folder = make_adapter(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    save(folder / "adapter_config.json", {**config, "megatron_config": {"x": 1}, "megatron_core": "antigravity"})
    with pytest.raises(ModelError, match="names code that would have to be run"):
        attach_adapter(tiny_clip(), folder)


@pytest.mark.parametrize("kind", ["clip", "siglip", "sam"])
def test_a_model_reads_no_weights_from_elsewhere(kind: str, tmp_path: Path, outside: Path) -> None:
    """Also where a folder is opened by its class: by an index, and by an adapter beside the model."""
    from tests.tiny_models import tiny_clip_model, tiny_sam_model, tiny_siglip_model
    from ttd.encoders.clip import CLIPEncoder
    from ttd.encoders.siglip import SigLIPEncoder
    from ttd.refine.sam import SAMRefiner

    make, load = {
        "clip": (tiny_clip_model, CLIPEncoder.from_pretrained),
        "siglip": (tiny_siglip_model, SigLIPEncoder.from_pretrained),
        "sam": (tiny_sam_model, SAMRefiner.from_pretrained),
    }[kind]
    folder = tmp_path / "set" / "model"
    make().save_pretrained(folder)
    save(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(outside)})
    with nothing_opened_in(outside), pytest.raises(ModelError, match="put the adapter into a folder of its own"):
        load(folder)
    (folder / "adapter_config.json").unlink()
    names = ["logit_scale"]
    (folder / "model.safetensors").rename(outside / "secret.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../../outside/secret.safetensors")}
    save(folder / "model.safetensors.index.json", index)
    with nothing_opened_in(outside), pytest.raises(ModelError, match='no "weight_map" of names of files'):
        load(folder)
