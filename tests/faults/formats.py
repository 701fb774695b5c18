"""The formats that the package reads from files: how one is made, damaged and read."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from tests.colour_encoder import ColourEncoder
from tests.data.samples import image, write_shards
from tests.faults.format import Format, pairs, written
from tests.faults.more_formats import MORE_FORMATS
from tests.faults.mutations import (
    csv_cell,
    json_leaf,
    json_lines_leaf,
    parquet_column,
    pickle_leaf,
    sealed_json_leaf,
    tensor,
    toml_leaf,
)
from tests.tiny_models import small_tokenizer, tiny_clip_model
from ttd.annotate.records import Record
from ttd.data.pruning import prune
from ttd.data.sources import PairSource
from ttd.data.tables import SCORES, write_table
from ttd.data.word_table import Token, token_table
from ttd.encoders.calibration import Calibration
from ttd.encoders.loading.checkpoints import read_tensors, write_tensors
from ttd.encoders.loading.formats import Card as ModelCard
from ttd.encoders.loading.formats import read_card, write_card
from ttd.encoders.registry import load_encoder
from ttd.errors import InputError
from ttd.evaluation.datasets.coco import CocoMasks
from ttd.evaluation.datasets.converters import from_polygons
from ttd.evaluation.datasets.multilabel import read_nus_wide
from ttd.evaluation.datasets.refcoco import read_refer
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.report.finished_run import read_run
from ttd.evaluation.runner import add
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.runs.results_file import RunRecords
from ttd.taggers.answers import AnswerCache, CachedAnswer
from ttd.training import checkpoint
from ttd.training.checkpoint import read_record
from ttd.training.config import read_config
from ttd.training.export import write_model_card
from ttd.training.logging import read_log

ROWS = [{"image": f"{n}.png", "caption": f"a red dog, number {n}"} for n in range(3)]


def _images(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image(number))


def _list(name: str, content: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _images(folder)
        return written(folder / name, content)

    return make


CSV = "image,caption\n" + "".join(f'{row["image"]},"{row["caption"]}"\n' for row in ROWS)
COCO = {
    "images": [{"id": n, "file_name": row["image"], "height": 24, "width": 24} for n, row in enumerate(ROWS)],
    "annotations": [{"id": n, "image_id": n, "caption": row["caption"]} for n, row in enumerate(ROWS)],
}


def _tar(folder: Path) -> Path:
    return write_shards(folder / "cc", [3])[0]


def _index(folder: Path) -> Path:
    PairSource([_tar(folder)])
    return folder / "cc" / "00000.tar.index"


KEYS = [f"{n:09d}" for n in range(3)]
PAIRS = {"shard": ["cc/00000.tar"] * 3, "key": KEYS}


def _keep(folder: Path) -> Path:
    _tar(folder)
    scores = folder / "scores.parquet"
    write_table(pa.table({**PAIRS, "score": [0.1, 0.2, 0.9]}, schema=SCORES), scores, {})
    prune([scores], folder / "keep.parquet", k=-0.5)
    return folder / "keep.parquet"


def _words(folder: Path) -> Path:
    _tar(folder)
    path = folder / "tags.parquet"
    words = (["red"], ["green", "image"], [])
    rows = [
        ("cc/00000.tar", key, [[Token("a", is_stop=True), *(Token(word, selected=True) for word in several)]])
        for key, several in zip(KEYS, words, strict=True)
    ]
    write_table(token_table(rows), path, {})
    return path


def _word_lines(folder: Path) -> Path:
    _tar(folder)
    lines = [{"shard": "cc/00000.tar", "key": key, "tags": [["red", "image"]]} for key in KEYS]
    return written(folder / "tags.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _tagmask(folder: Path) -> Path:
    (folder / "images").mkdir()
    _images(folder / "images")
    rows = [{"id": str(n), "caption": "a red dog", "words": ["a", "red", "dog"], "true": ["dog"]} for n in range(3)]
    return written(folder / "tags.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _measurements(folder: Path) -> Path:
    _tagmask(folder)
    tags = {"words": ["a", "red", "dog"], "true": [False, False, True], "asked": ["red", "dog"]}
    decisions = {"s_pixel": [[0.1, False], [0.3, True]]}
    record = {"mask": [1, 2, 3, 100], "tags": {**tags, "decisions": decisions}, "taggers": {}}
    lines = [{"id": str(n), **record} for n in range(3)]
    return written(folder / "measurements.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _add_up(folder: Path) -> Any:
    benchmark = TagMask(read_tagmask(folder), {}, {}, scores=("s_pixel",))
    tally = benchmark.tally()
    for record in RunRecords(folder).records(["0", "1", "2"], benchmark.check):
        add(tally, record, folder)
    return repr(tally.result())


SETTINGS = {
    "model": {
        **{"name": "mini", "adapter": None, "adapter_scale": None, "method": "maskclip", "fingerprint": "2:ab"},
        "encoder": {"method": "maskclip", "refine": "none"},
    },
    "options": {"masks": {"refine": "auto"}},
    "data": {"root": "/data", "fingerprint": "cd"},
    "protocol": "paper",
    "task": {},
}
RESULTS = {"benchmark": "voc", "settings": SETTINGS, "measured": 3, "items": 3, "numbers": {"mIoU": 0.5, "FPR": None}}


def _results(folder: Path) -> Any:
    from ttd.evaluation.report.tables import tables

    found = read_run(folder)
    return repr((found.names, found.data, tables([found])))


def _run(folder: Path) -> Path:
    config = read_config(None).to_dict()
    record = {"base": "2:ab", "data": "cd", "method": "maskclip", "pairs": 9, "steps": 4, "world": 1, "command": "ttd"}
    more = {"seed": 0, "versions": {"ttd": "0.1"}, "config": config}
    written(folder / "log.jsonl", "".join(json.dumps(_entry(step)) + "\n" for step in range(3)))
    return written(folder / "run.json", {**record, **more})


def _entry(step: int) -> dict[str, float]:
    return {"step": step, "loss": 0.5, "distill": 0.25, "distill_weight": 1.0, "selected": 0.4, "lr": 1e-4}


def _log(folder: Path) -> Path:
    _run(folder)
    return folder / "log.jsonl"


def _card(folder: Path) -> Any:
    return read_record(folder), read_log(folder), write_model_card(folder).read_text("utf-8")


TOML = """
[model]
name = "mini"
rank = 4
kept = 0.5
[data]
sources = ["a.tar"]
[optimiser]
rate = 1e-4
batch = 8
epochs = 2
"""


def _checkpoint(folder: Path) -> Path:
    return checkpoint.save(folder, 3, {"adapter": {"w": torch.arange(40.0)}, "damaged": [], "truncated_captions": 0}, 1)


def _record(folder: Path) -> Path:
    values = {"shard": "s", "key": "k", "caption_index": 0, "caption": "a red dog", "words": ("a", "red", "dog")}
    mask = np.eye(8, dtype=bool)
    record = Record("item", 1, "accepted", true=("dog",), size=(8, 8), masks={"dog": mask}, **values)  # type: ignore[arg-type]
    return written(folder / "item.json", record.to_json())


def _decision(folder: Path) -> Any:
    path = folder / "item.json"
    return Record.from_json(path.read_bytes(), path).to_json()


def _cache(folder: Path) -> AnswerCache:
    return AnswerCache(folder / "answers.sqlite", "m", "p", {})


def _answers(folder: Path) -> Path:
    with _cache(folder) as cache:
        cache.put({f"caption {n}": CachedAnswer(f"answer {n}", n == 2) for n in range(5)})
    return folder / "answers.sqlite"


def _asked(folder: Path) -> Any:
    with _cache(folder) as cache:
        found = cache.get([f"caption {n}" for n in range(5)])
    # What is not known any more is asked again.
    return [found.get(f"caption {n}", ("skipped",)) for n in range(5)]


def _nus(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(image(1))
    (folder / "images" / "b.png").write_bytes(image(2))
    return written(
        folder / "nus_wid_data.csv", "images/a.png,\"['sky', 'birds']\",val\nimages/b.png,\"['sky']\",test\n"
    )


def _labels(folder: Path) -> Any:
    found = read_nus_wide(folder)
    return [str(sample.image) for sample in found.samples], found.truth.tolist()


POLYGONS = {
    "imgHeight": 20,
    "imgWidth": 30,
    "objects": [
        {"label": "road", "polygon": [[1, 1], [20, 2], [9, 15]]},
        {"label": "car", "polygon": [[5, 5], [9, 5], [9, 9]]},
    ],
}
TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.bias": torch.ones(3)}


def _pickled(folder: Path) -> Path:
    torch.save({"state_dict": TENSORS}, folder / "model.pt")
    return folder / "model.pt"


def _safe(folder: Path) -> Path:
    write_tensors(TENSORS, folder / "model.safetensors")
    return folder / "model.safetensors"


def _read(name: str) -> Callable[[Path], Any]:
    return lambda folder: {key: value.tolist() for key, value in read_tensors(folder / name).items()}


def _model_card(folder: Path) -> Path:
    numbers = {"image_size": 224, "background": 0.5, "caption_threshold": 0.4, "calibration": Calibration(10.0, 0.25)}
    names = {"method": "maskclip", "fingerprint": "2:ab", "vocabulary": "words.txt", "base": "mini"}
    write_card(folder, ModelCard("clip", **numbers, **names))  # type: ignore[arg-type]
    return folder / "ttd.json"


SQUARE, TRIANGLE = [4, 4, 12, 4, 12, 10, 4, 10], [0, 9, 16, 9, 16, 12]
RUNS, PACKED = ({"size": [12, 16], "counts": counts} for counts in ([20, 40, 132], "T3n0n1"))
INSTANCES: dict[str, Any] = {
    "images": [{"id": n, "file_name": f"{n}.png", "height": 12, "width": 16} for n in (1, 2)],
    "categories": [{"id": 7, "name": "dog"}, {"id": 9, "name": "sea"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 48.0, "segmentation": [SQUARE]},
        {"id": 2, "image_id": 1, "category_id": 9, "segmentation": [SQUARE, TRIANGLE]},
        {"id": 3, "image_id": 2, "category_id": 7, "segmentation": RUNS},
        {"id": 4, "image_id": 2, "category_id": 9, "iscrowd": 1, "segmentation": PACKED},
    ],
}


def _instances(folder: Path) -> Any:
    found: list[Any] = []
    masks = CocoMasks(folder / "instances.json")
    for number in sorted(masks.images):
        try:
            by_name = {name: mask.tolist() for name, mask in masks.masks(number).items()}
            found.append((masks.images[number], by_name, masks.label_map(number, sorted(masks.categories)).tolist()))
        except InputError as error:  # as those who go through the images do
            found.append(("skipped", str(error)))
    return found


REFS = [
    {"split": split, "image_id": image, "ann_id": object, "sentences": [{"sent_id": 10 * object, "sent": "left dog"}]}
    for split, image, object in (("val", 1, 1), ("val", 1, 2), ("testA", 2, 3))
]


def _refer(folder: Path) -> Path:
    (folder / "images").mkdir()
    for entry in INSTANCES["images"]:
        (folder / "images" / entry["file_name"]).write_bytes(image(1))
    written(folder / "instances.json", INSTANCES)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(REFS, 2))
    return folder / "refs(unc).p"


def _expressions(folder: Path) -> Any:
    found: list[Any] = []
    for one in read_refer("refcoco", folder).images:
        for expression in one.expressions:
            try:
                mask = one.mask(expression.annotation).tolist()
                found.append((one.sample.id, one.sample.image.name, one.size, expression, mask))
            except InputError as error:
                found.append(("skipped", str(error)))
    return found


def _features(folder: Path) -> Path:
    _look(folder)
    return next(folder.rglob("views.json"))


def _look(folder: Path) -> Any:
    torch.manual_seed(0)
    model = TTD(ColourEncoder())
    model.keep_features(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    options = Options(size=24, flip=True, window=24, stride=16)
    found = model.segment(Image.fromarray(pixels), ["red", "blue"], options=options)
    return found.label_map.tolist()


def _model(folder: Path) -> Path:
    """A CLIP with a tokenizer of its own, and beside it an adapter for it."""
    model = tiny_clip_model(layers=1, width=32, image=32, vocab=300)
    model.config.text_config.eos_token_id = 1
    model.save_pretrained(folder / "model")
    small_tokenizer().save_pretrained(folder / "model")
    encoder = load_encoder(folder / "model")
    card = ModelCard("clip", method="maskclip", image_size=32, fingerprint=encoder.fingerprint(), base="mine")
    write_card(folder / "model", ModelCard("clip", method="maskclip", image_size=32))
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=encoder.lora_targets(), init_lora_weights=False)
    get_peft_model(encoder.backbone, config).save_pretrained(folder / "adapter")
    write_card(folder / "adapter", card)
    return folder / "model"


def _in_model(path: str) -> Callable[[Path], Path]:
    return lambda folder: _model(folder).parent / path


def _loaded(folder: Path) -> Any:
    return _said(load_encoder(folder / "model"))


def _adapted(folder: Path) -> Any:
    return _said(load_encoder(folder / "model", adapter=folder / "adapter"))


def _said(encoder: Any) -> Any:
    features = encoder.encode_image(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))
    texts = encoder.encode_text(["a photo dog", "Dog"]).tolist()
    settings = (encoder.kind, encoder.method, encoder.image_size, encoder.background, encoder.mean, encoder.std)
    return repr((settings, encoder.fingerprint(), features.pooled.tolist(), features.dense.tolist(), texts))


FORMATS = {
    **MORE_FORMATS,
    "tar shard": Format(_tar, lambda f: pairs(PairSource([f / "cc" / "00000.tar"]))),
    "tar index": Format(_index, lambda f: pairs(PairSource([f / "cc" / "00000.tar"])), None, True),
    "list csv": Format(_list("l.csv", CSV), lambda f: pairs(PairSource([f / "l.csv"])), csv_cell),
    "list jsonl": Format(
        _list("l.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS)),
        lambda f: pairs(PairSource([f / "l.jsonl"])),
        json_lines_leaf,
    ),
    "coco captions": Format(_list("l.json", COCO), lambda f: pairs(PairSource([f / "l.json"])), json_leaf),
    "keep-list": Format(_keep, lambda f: pairs(PairSource([f / "cc"], keep=f / "keep.parquet")), parquet_column, True),
    "tag table": Format(_words, lambda f: pairs(PairSource([f / "cc"], tags=f / "tags.parquet")), parquet_column, True),
    "tag lines": Format(_word_lines, lambda f: pairs(PairSource([f / "cc"], tags=f / "tags.jsonl")), json_lines_leaf),
    "tagmask rows": Format(_tagmask, lambda f: repr(read_tagmask(f)), json_lines_leaf),
    "measurements": Format(_measurements, _add_up, json_lines_leaf),
    "results.json": Format(lambda f: written(f / "results.json", RESULTS), _results, json_leaf),
    "run.json": Format(_run, _card, json_leaf),
    "log.jsonl": Format(_log, _card, json_lines_leaf),
    "config toml": Format(lambda f: written(f / "c.toml", TOML), lambda f: repr(read_config(f / "c.toml")), toml_leaf),
    "checkpoint": Format(_checkpoint, lambda f: repr(checkpoint.load_last(f)), None, True),
    "annotation": Format(_record, _decision, json_leaf),
    "answer cache": Format(_answers, _asked, None, True),
    "nus-wide csv": Format(_nus, _labels, csv_cell),
    "polygons": Format(
        lambda f: written(f / "p.json", POLYGONS), lambda f: from_polygons(f / "p.json").tolist(), json_leaf
    ),
    "ttd.json": Format(_model_card, lambda f: repr(read_card(f)), json_leaf),
    "coco instances": Format(lambda f: written(f / "instances.json", INSTANCES), _instances, json_leaf),
    "refcoco pickle": Format(_refer, _expressions, pickle_leaf),
    "refcoco instances": Format(lambda f: _refer(f).with_name("instances.json"), _expressions, json_leaf),
    "feature cache": Format(_features, _look, sealed_json_leaf, True),
    "cached features": Format(lambda f: next(_features(f).parent.glob("*.safetensors")), _look, None, True),
    "model config": Format(_in_model("model/config.json"), _loaded, json_leaf),
    "model tokenizer": Format(_in_model("model/tokenizer.json"), _loaded, json_leaf),
    "tokenizer config": Format(_in_model("model/tokenizer_config.json"), _loaded, json_leaf),
    "model weights": Format(_in_model("model/model.safetensors"), _loaded, tensor),
    "adapter config": Format(_in_model("adapter/adapter_config.json"), _adapted, json_leaf),
    "adapter weights": Format(_in_model("adapter/adapter_model.safetensors"), _adapted, tensor),
    "safetensors": Format(_safe, _read("model.safetensors"), tensor),
    "pickle": Format(_pickled, _read("model.pt")),
}
