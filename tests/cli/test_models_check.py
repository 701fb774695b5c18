"""`ttd models check`: what is printed is what the model is, and differences from the catalogue are reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ttd
from tests.cli.conftest import invoke
from tests.encoders.hub_stand_in import StandIn, serving
from tests.tiny_models import tiny_clip_model
from ttd.encoders.loading import catalogue
from ttd.encoders.loading.catalogue import ModelEntry, ModelShape
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.encoders.registry import MINI

REPO = "someone/tiny-clip"
TRUE = ModelShape(16, 64, 2, 2, "quick_gelu", 49_408)


run = partial(invoke, "models", "check")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A hub with a tiny CLIP, and a row of the catalogue that describes it rightly."""
    folder = tmp_path / "published"
    tiny_clip_model().save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.files |= {f"{REPO}/{path.name}": path.read_bytes() for path in folder.iterdir()}
        content = hub.files[f"{REPO}/model.safetensors"]
        list_as(monkeypatch, size=len(content), sha256=hashlib.sha256(content).hexdigest(), shape=TRUE)
        yield hub


def list_as(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    row = ModelEntry("tiny", "clip", REPO, None, "MIT")
    monkeypatch.setattr(catalogue, "CATALOGUE", (dataclasses.replace(row, **changes),))


def test_mini_with_a_photo(tmp_path: Path) -> None:
    Image.effect_noise((90, 60), 80).convert("RGB").save(tmp_path / "photo.png")
    caption = "a rabbit beside a croissant"
    result = run("mini", "--image", tmp_path / "photo.png", "--caption", caption, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    model = ttd.load("mini")
    weights = MINI / "model.safetensors"
    assert found["files"] == [
        {
            "path": str(weights),
            "size": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        }
    ]
    assert (found["kind"], found["format"], found["path"]) == ("clip", "hf", str(MINI))
    config = model.encoder.backbone.config
    assert found["shape"] == {
        "patch_size": config.vision_config.patch_size,
        "image_size": 128,
        "vision_heads": config.vision_config.num_attention_heads,
        "text_heads": config.text_config.num_attention_heads,
        "activation": config.vision_config.hidden_act,
        "tokens": 49_408,
    }
    assert (found["end_token"], found["pooled"], found["max_tokens"]) == (49_407, "highest", 77)
    assert tuple(found["mean"]) == model.encoder.mean
    assert found["fingerprint"] == model.encoder.fingerprint()
    assert found["settings"] == json.loads(json.dumps(model.encoder.settings()))
    assert found["seconds_per_image"] > 0
    assert found["free_space"] > 0
    tags = model.tag(tmp_path / "photo.png", caption).to_dict()
    assert found["tags"]["selected"] == tags["selected"]
    assert statistics.fmean(w["score"] for w in found["tags"]["words"]) == pytest.approx(
        statistics.fmean(w["score"] for w in tags["words"]), abs=1e-5
    )
    assert found["differences"] == []


def test_for_people(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.png")
    result = run("mini", "--image", tmp_path / "photo.png", "--caption", "a rabbit")
    rows = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert rows["kind"].strip() == "clip (hf)"
    assert rows["heads"].strip() == "3 (vision), 2 (text)"
    assert rows["tokenizer"].strip().startswith("49408 tokens, end 49407")
    assert rows["tags"].strip().startswith("rabbit 0.")
    assert {"file", "activation", "mean, std", "identity", "speed", "method"} <= {name.strip() for name in rows}


def test_a_download_is_announced_and_a_model_as_listed_passes(published: StandIn) -> None:
    first = run("tiny", "--json")
    assert (first.exit_code, json.loads(first.stdout)["differences"]) == (0, [])
    assert "tiny is not on this machine: about 1" in first.stderr
    assert "free in" in first.stderr
    assert json.loads(first.stdout)["seconds_per_image"] > 0
    second = run("tiny", "--json")
    assert "not on this machine" not in second.stderr
    assert json.loads(second.stdout)["fingerprint"] == json.loads(first.stdout)["fingerprint"]


def test_what_differs_from_the_catalogue(published: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("tiny").exit_code == 0  # in the cache from here on
    other = ModelShape(32, 64, 12, 2, "gelu", 32_000)
    list_as(monkeypatch, kind="siglip", size=99_000_000, sha256="0" * 64, shape=other)
    result = run("tiny", "--json")
    differences = json.loads(result.stdout)["differences"]
    assert result.exit_code == 1
    for said in (
        "the kind is clip, in the catalogue siglip",
        "in the catalogue about 99,000,000",
        f"in the catalogue {'0' * 64}",
        "patch_size is 16, in the catalogue 32",
        "vision_heads is 2, in the catalogue 12",
        "activation is quick_gelu, in the catalogue gelu",
        "tokens is 49408, in the catalogue 32000",
    ):
        assert sum(said in difference for difference in differences) == 1, said
        assert said in " ".join(result.stderr.split())
    assert len(differences) == 7


def test_no_room_is_said_before_anything_is_fetched(published: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttd.encoders.loading.downloads.free_space", lambda place: 2_000_000)
    result = run("tiny")
    assert result.exit_code != 0
    assert "only about 2 MB is free" in str(result.exception) + result.stderr
    assert not published.requests


def test_a_wrong_folder_and_half_a_question(tmp_path: Path, cache: Path) -> None:
    shutil.copytree(MINI, tmp_path / "m")
    (tmp_path / "m/tokenizer_config.json").write_text("{}")
    for name in ("tokenizer.json", "vocab.json"):
        (tmp_path / "m" / name).unlink(missing_ok=True)
    result = run(tmp_path / "m")
    assert result.exit_code != 0
    assert "no vocabulary" in str(result.exception) + result.stderr
    assert "belong together" in run("mini", "--caption", "a dog").output


@pytest.mark.parametrize("entry", [e for e in catalogue.CATALOGUE if e.shape], ids=lambda e: e.name)
def test_the_catalogue_s_shapes_are_whole(entry: ModelEntry) -> None:
    assert entry.shape is not None
    assert None not in dataclasses.astuple(entry.shape)
    assert entry.shape.image_size % entry.shape.patch_size == 0
