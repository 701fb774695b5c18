"""The folder of encoded images: the same bits with it, without it, and whatever is broken in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import ttd
from tests.colour_encoder import ColourEncoder
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Oracle
from tests.tiny_models import tiny_clip, tiny_tcl
from ttd.cli import cli
from ttd.encoders.base import Encoder
from ttd.encoders.methods import find_method
from ttd.inference.feature_cache import FeatureCache, encoder_key
from ttd.inference.options import Options
from ttd.inference.views import View
from ttd.model import TTD

LOOK: dict[str, Any] = {"size": 32, "scales": (1.0, 0.5), "flip": True, "window": 32, "stride": 16}


def image(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def tensors(views: Iterator[View]) -> list[Any]:
    found: list[Any] = []
    for view in views:
        features = view.features
        kept = (features.dense, features.pooled, *(features.extras[name] for name in sorted(features.extras)))
        found.append([*kept, features.size, features.offset, features.padded, view.rows, view.columns, view.weight])
    return found


def same(one: list[Any], other: list[Any]) -> bool:
    pairs = [pair for view in zip(one, other, strict=True) for pair in zip(*view, strict=True)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("make", [tiny_clip, tiny_tcl])
def test_what_is_read_back_is_what_was_encoded(make: Any, tmp_path: Path) -> None:
    encoder = make()
    plain, cached = TTD(encoder), TTD(encoder)
    cached.keep_features(tmp_path)
    fresh = tensors(plain.encode(image(), Options(**LOOK)).views)
    for _ in range(2):
        assert same(tensors(cached.encode(image(), Options(**LOOK)).views), fresh)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(fresh)
    if make is tiny_tcl:
        assert fresh[0][2].shape[1] == fresh[0][0].shape[1]  # the frozen branch is kept too


def test_the_second_time_nothing_is_encoded(tmp_path: Path) -> None:
    model = TTD(ColourEncoder())
    model.keep_features(tmp_path)
    first = model.segment(image(), ["red", "blue"], options=Options(**LOOK))
    seen = model.encoder.images_seen
    again = model.segment(image(), ["red", "blue"], options=Options(background=0.9, **LOOK))
    model.tag(model.encode(image(), Options(**LOOK)), "red and blue")
    assert model.encoder.images_seen == seen > 0
    assert not np.array_equal(first.label_map, again.label_map)
    for change in ({"size": 24}, {"flip": False}, {"stride": 8}):
        before = model.encoder.images_seen
        model.segment(image(), ["red"], options=Options(**{**LOOK, **change}))
        assert model.encoder.images_seen > before, change
    before = model.encoder.images_seen
    model.segment(image(1), ["red"], options=Options(**LOOK))
    assert model.encoder.images_seen > before


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("damage", ["missing", "short", "one bit", "empty"])
def test_a_damaged_entry_is_made_anew(damage: str, number: int, tmp_path: Path) -> None:
    encoder = tiny_clip()
    fresh = tensors(TTD(encoder).encode(image(), Options(**LOOK)).views)
    model = TTD(encoder)
    model.keep_features(tmp_path)
    model.encode(image(), Options(**LOOK))
    for path in (sorted(tmp_path.rglob("*.safetensors"))[number], next(tmp_path.rglob("views.json"))):
        content = path.read_bytes()
        flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        broken = {"short": content[:-3], "one bit": flipped, "empty": b""}
        path.unlink() if damage == "missing" else path.write_bytes(broken[damage])
        assert same(tensors(model.encode(image(), Options(**LOOK)).views), fresh)
        assert path.read_bytes() == content


def test_a_look_that_stops_early_leaves_no_entry(tmp_path: Path) -> None:
    views = FeatureCache(tmp_path, tiny_clip()).views(image(), Options(**LOOK))
    next(iter(views))
    assert not list(tmp_path.rglob("views.json"))
    assert len(list(views)) == len(list(tmp_path.rglob("*.safetensors")))
    assert len(list(tmp_path.rglob("views.json"))) == 1


def test_every_encoder_has_its_own_entries() -> None:
    def changed(change: Any) -> Encoder:
        torch.manual_seed(0)
        encoder = tiny_clip()
        change(encoder)
        return encoder

    def nudge(encoder: Any) -> None:
        with torch.no_grad():
            parameter = next(encoder.parameters())
            parameter.view(-1)[0] = torch.nextafter(parameter.view(-1)[0], torch.tensor(9.0))

    def method(encoder: Any) -> None:
        encoder.method = find_method("naclip")

    changes = [lambda e: None, nudge, method, lambda e: e.to(torch.bfloat16), lambda e: setattr(e, "mean", (0, 0, 0))]
    keys = [encoder_key(changed(change)) for change in changes]
    assert len(set(keys)) == len(keys)
    assert encoder_key(changed(changes[0])) == keys[0]


def test_eval_with_another_threshold_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, titles = write(tmp_path / "data", "voc", count=2)
    encoder = Oracle(titles)
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(encoder))

    def run(out: str, *more: str) -> dict[str, bytes]:
        arguments = ["eval", "voc", "--data", str(tmp_path / "data"), "--model", "o", "--protocol", "default", *more]
        done = CliRunner().invoke(cli, [*arguments, "--images", "0", "--out", str(tmp_path / out)], prog_name="ttd")
        assert done.exit_code == 0, done.output
        names = ("measurements.jsonl", "per_class.csv")
        return {name: (tmp_path / out / name).read_bytes() for name in names}

    cache = ["--cache", str(tmp_path / "cache")]
    plain, other = run("plain"), run("other", "--background", "0.9")
    assert run("cached", *cache) == plain
    seen = encoder.images_seen
    assert run("again", *cache) == plain
    assert run("other again", "--background", "0.9", *cache) == other
    assert encoder.images_seen == seen
