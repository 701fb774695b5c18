"""More of the formats that the package reads: images, tables, other programs' files, other models than a CLIP."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import torch
from PIL import Image

from tests.data.samples import caption, image
from tests.faults.format import Format, pairs, written
from tests.faults.mutations import HOSTILE, json_leaf, parquet_column
from tests.tiny_models import small_tokenizer, tiny_clip_model, tiny_dino, write_tiny_clip
from ttd.annotate.exchange import read_exchanged, to_coco, to_label_studio
from ttd.annotate.records import Record
from ttd.annotate.store import AnnotationStore
from ttd.data.calibration_fit import read_counts
from ttd.data.pruning import prune
from ttd.data.score_jobs import COUNTS
from ttd.data.sources import PairSource
from ttd.data.tables import SCORES, read_table, write_table
from ttd.encoders.calibration import read_calibration
from ttd.encoders.domain import STATISTICS, Domain, read_domain, write_domain
from ttd.encoders.loading.checkpoints import write_tensors
from ttd.encoders.loading.formats import Card, write_card
from ttd.encoders.loading.openai_names import clip_to_openai
from ttd.encoders.registry import load_encoder
from ttd.evaluation.datasets.classes import read_classes, read_numbers
from ttd.evaluation.datasets.labels import read_labels, read_voc_labels
from ttd.images import read_image
from ttd.methods.second_backbone import load_second_backbone

# ---------------------------------------------------------------- images


def _photo(kind: str, **more: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photo", kind, **more)
        return folder / "photo"

    return make


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _pixels(folder: Path) -> Any:
    return np.asarray(read_image(folder / "photo")).tolist()


def _palette(folder: Path) -> Path:
    stored = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10) % 5, "L").convert("P")
    stored.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128])
    stored.save(folder / "labels.png")
    return folder / "labels.png"


def _label_values(folder: Path) -> Any:
    return read_labels(folder / "labels.png").tolist(), read_voc_labels(folder / "labels.png", 21)[0].tolist()


# ---------------------------------------------------------------- tables


def _img2dataset(folder: Path) -> Path:
    rows = range(3)
    columns = {"key": [f"{n:09d}" for n in rows], "caption": [*map(caption, rows)], "jpg": [*map(image, rows)]}
    (folder / "set").mkdir()
    pq.write_table(pa.table(columns), folder / "set" / "00000.parquet")
    return folder / "set" / "00000.parquet"


def _arrow(folder: Path) -> Path:
    path = folder / "set" / "data-00000-of-00001.arrow"
    path.parent.mkdir()
    images = [{"bytes": image(n), "path": f"{n}.png"} for n in range(3)]
    table = pa.table({"image": images, "text": [[caption(n), "again"] for n in range(3)]})
    with path.open("wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def _list_table(folder: Path) -> Path:
    for n in range(3):
        (folder / f"{n}.png").write_bytes(image(n))
    columns = {"image": [f"{n}.png" for n in range(3)], "caption": [*map(caption, range(3))]}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def _scores(folder: Path) -> Path:
    keys = [f"{n:09d}" for n in range(4)]
    rows = {"shard": ["cc/00000.tar"] * 4, "key": keys, "score": [0.1, 0.2, 0.3, 0.9]}
    write_table(pa.table(rows, schema=SCORES), folder / "scores.parquet", {})
    return folder / "scores.parquet"


def _pruned(folder: Path) -> Any:
    prune([folder / "scores.parquet"], folder / "keep.parquet", k=0.0, per_set=True)
    return [row for batch in read_table(folder / "keep.parquet", SCORES) for row in batch.to_pylist()]


def _counts(folder: Path) -> Path:
    rows = {"bin": [400, 500, 600], "own": [1, 5, 9], "others": [9, 5, 1]}
    write_table(pa.table(rows, schema=COUNTS), folder / "counts.parquet", {})
    return folder / "counts.parquet"


def _counted(folder: Path) -> Any:
    found = read_counts([folder / "counts.parquet"])
    return found.scores.tolist(), found.own.tolist(), found.others.tolist()


# ---------------------------------------------------------------- JSON and text


def _record() -> Record:
    values = {"shard": "s", "key": "k", "caption_index": 0, "caption": "a red dog", "words": ("a", "red", "dog")}
    shown = {"true": ("dog",), "size": (8, 8), "masks": {"dog": np.eye(8, dtype=bool)}, "image": "item.png"}
    return Record("item", 1, "accepted", **shown, **values)  # type: ignore[arg-type]


def _exchanged(make: Callable[[list[Record]], Any]) -> Format:
    return Format(
        lambda f: written(f / "given.json", make([_record()])),
        lambda f: [one.to_json() for one in read_exchanged(f / "given.json")],
        json_leaf,
    )


def _draft(folder: Path) -> Path:
    prompts = {"dog": {"points": [[1, 2]], "labels": [1], "box": None}}
    draft = {"caption": "a dog", "base_version": 1, "true": ["dog"], "active": "dog", "prompts": prompts}
    AnnotationStore(folder / "set").save_draft("item", draft)
    return next((folder / "set").rglob("item.json"))


def _domain(folder: Path) -> Path:
    numbers = {"weights": (0.5,) * STATISTICS, "bias": -1.0}
    names = Domain.__dataclass_fields__
    write_domain(folder / "domain.json", Domain(**{n: numbers.get(n, "scenes") for n in names}))  # type: ignore[arg-type]
    return folder / "domain.json"


CALIBRATION = {"calibration": {"w": 10.0, "c": 0.25}, "fingerprint": "2:ab", "method": "values", "words": 9}


def _line(content: bytes, draws: random.Random) -> bytes:
    """One line of a text."""
    lines = content.decode().splitlines()
    value = str(draws.choice(HOSTILE)).encode("utf-8", "replace").decode()
    lines[draws.randrange(len(lines))] = draws.choice([value, f"{value}; x", f"# {value}", f"1: {value}", ";"])
    return "\n".join(lines).encode()


# ---------------------------------------------------------------- models


def _said(encoder: Any) -> Any:
    features = encoder.encode_image(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))
    texts = encoder.encode_text(["a photo dog"]).tolist()
    return repr((encoder.kind, encoder.method, encoder.mean, features.pooled.tolist(), texts))


def _in_shards(folder: Path) -> Path:
    model = tiny_clip_model(layers=1, width=32, image=32, vocab=300)
    model.config.text_config.eos_token_id = 1
    model.save_pretrained(folder / "model", max_shard_size="40KB")
    small_tokenizer().save_pretrained(folder / "model")
    write_card(folder / "model", Card("clip", method="maskclip", image_size=32))
    return folder / "model" / "model.safetensors.index.json"


def _open_clip(folder: Path) -> Path:
    tensors = {name: t.clone().contiguous() for name, t in clip_to_openai(tiny_clip_model().state_dict()).items()}
    write_tensors(tensors, folder / "model" / "open_clip_model.safetensors")
    shape = {"embed_dim": 48, "vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}}
    statistics = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    content = {"model_cfg": shape, "preprocess_cfg": statistics}
    return written(folder / "model" / "open_clip_config.json", content)


def _backbone(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        tiny_dino().save_pretrained(folder / "dino")
        statistics = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
        written(folder / "dino" / "preprocessor_config.json", statistics)
        return folder / "dino" / name

    return make


def _second(folder: Path) -> Any:
    model = load_second_backbone(folder / "dino")
    with torch.no_grad():
        return model(torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)).tolist()


def _merges(content: bytes, draws: random.Random) -> bytes:
    """One line of merges."""
    lines = content.decode().splitlines()
    lines[draws.randrange(len(lines))] = draws.choice(["", "x", "a b c", "\ud7ff \0", "zz zz", "#version: 9"])
    return "\n".join(lines).encode()


def _slow_tokenizer(name: str) -> Callable[[Path], Path]:
    """A model whose tokenizer is `vocab.json` and `merges.txt`."""

    def make(folder: Path) -> Path:
        model = write_tiny_clip(folder / "model")
        content = json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]
        written(model / "vocab.json", content["vocab"])
        merges = [one if isinstance(one, str) else " ".join(one) for one in content["merges"]]
        written(model / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
        (model / "tokenizer.json").unlink()
        return model / name

    return make


def _loaded(folder: Path) -> Any:
    return _said(load_encoder(folder / "model"))


MORE_FORMATS = {
    "png": Format(_photo("PNG"), _pixels),
    "jpeg": Format(_photo("JPEG", exif=_turned()), _pixels),
    "webp": Format(_photo("WEBP", lossless=True), _pixels),
    "tiff": Format(_photo("TIFF", compression="tiff_lzw"), _pixels),
    "gif": Format(_photo("GIF"), _pixels),
    "label png": Format(_palette, _label_values),
    "image parquet": Format(_img2dataset, lambda f: pairs(PairSource([f / "set" / "00000.parquet"])), parquet_column),
    "image arrow": Format(_arrow, lambda f: pairs(PairSource(f / "set"))),
    "list parquet": Format(_list_table, lambda f: pairs(PairSource([f / "list.parquet"])), parquet_column),
    "score table": Format(_scores, _pruned, parquet_column, True),
    "word counts": Format(_counts, _counted, parquet_column, True),
    "label studio": _exchanged(to_label_studio),
    "coco annotations": _exchanged(to_coco),
    "draft": Format(_draft, lambda f: repr(AnnotationStore(f / "set").draft("item")), json_leaf),
    "domain": Format(_domain, lambda f: repr(read_domain(f / "domain.json")), json_leaf),
    "calibration": Format(
        lambda f: written(f / "c.json", CALIBRATION), lambda f: repr(read_calibration(f / "c.json")[0]), json_leaf
    ),
    "class list": Format(
        lambda f: written(f / "c.txt", "# of photos\ncat; kitty\ndog\nsea\n"),
        lambda f: repr(read_classes(f / "c.txt")),
        _line,
    ),
    "number list": Format(
        lambda f: written(f / "n.txt", "0: road\n7: sea\n11: dog\n"), lambda f: repr(read_numbers(f / "n.txt")), _line
    ),
    "weights index": Format(_in_shards, _loaded, json_leaf),
    "openclip config": Format(_open_clip, _loaded, json_leaf),
    "vocabulary": Format(_slow_tokenizer("vocab.json"), _loaded, json_leaf),
    "merges": Format(_slow_tokenizer("merges.txt"), _loaded, _merges),
    "backbone config": Format(_backbone("config.json"), _second, json_leaf),
    "image statistics": Format(_backbone("preprocessor_config.json"), _second, json_leaf),
}
