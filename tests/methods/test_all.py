"""What every method promises: any image, batches, windows, a few blocks, gradients, and every command that takes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ttd
from tests.cli.conftest import invoke
from tests.evaluation.layouts import write
from tests.tiny_models import random_pixels, tiny_clip, tiny_dino, tiny_plain_sam, tiny_siglip, tiny_tcl
from tests.tolerance import assert_close
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.methods import Method, find_method, method_names
from ttd.errors import ModelError
from ttd.inference.options import Options
from ttd.methods.sam_attention import SAMEncoder
from ttd.methods.second_backbone import SecondBackbone
from ttd.methods.trident import Backbones
from ttd.model import TTD

NAMES = method_names()
IMAGE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
VIEWS = (Options(size=64), Options(size=64, window=48, stride=32, flip=True))


def method(name: str) -> Method:
    """The method, beside small second backbones where it has any."""
    found = find_method(name)
    if found.second_backbone is None:
        return found
    proxy = SecondBackbone(tiny_dino())
    both = proxy if name == "proxyclip" else Backbones(proxy, SAMEncoder(tiny_plain_sam().vision_encoder))
    return replace(found, second_backbone=lambda device: both)


def encoder(name: str, **sizes: int) -> CLIPEncoder:
    return tiny_clip(**sizes).with_method(method(name))


@pytest.mark.parametrize("options", VIEWS, ids=["whole", "windows"])
@pytest.mark.parametrize("name", NAMES)
def test_tags_masks_and_labels_of_any_image(name: str, options: Options) -> None:
    model = TTD(encoder(name))
    images = [IMAGE, np.ascontiguousarray(IMAGE[:, :80])]
    for tagging in model.tag_many([*images, IMAGE], ["a dog on the grass by the sea"] * 3, options=options):
        assert isinstance(tagging, ttd.Tagging)
        assert [word.text for word in tagging.words] == ["dog", "grass", "sea"]
        assert all(np.isfinite(word.score) for word in tagging.words)
    labels = model.segment(IMAGE, ["dog", "grass", "sea"], options).label_map
    assert labels.shape == (80, 120)
    assert model.heatmaps(IMAGE, ["dog"], options).shape == (1, 80, 120)
    assert model.caption_mask(IMAGE, "a dog", options=options).shape == (80, 120)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", [1, 2, 7])
def test_images_of_a_batch_do_not_see_each_other(name: str, layers: int) -> None:
    of = encoder(name, layers=layers)
    pixels, text = random_pixels(2, 64, 112), torch.randn(3, 48)
    both = of.encode_image(pixels)
    assert both.dense.isfinite().all()
    for number, one in enumerate(pixels):
        alone = of.encode_image(one[None])
        assert_close(alone.dense[0], both.dense[number], 2000)
        found, expected = (of.similarity(features, text) for features in (alone, both))
        assert found.isfinite().all()
        if not name.startswith("cliptrase"):  # where a vote is close, a rounding decides it
            assert_close(found[0], expected[number], 2000)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_training_changes(name: str) -> None:
    of = encoder(name)
    pixels = random_pixels(2, 64, 96)
    sim = of.similarity(of.encode_for_similarity(pixels), torch.randn(3, 48))
    sim.square().sum().backward()
    targets = of.lora_targets()
    assert any(target.startswith("vision_model") for target in targets)
    modules = {target: of._clip.get_submodule(target) for target in targets if target.startswith("vision_model")}
    for target, module in modules.items():
        gradient = module.weight.grad
        assert gradient is not None, target
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, target


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_source(name: str) -> None:
    source = find_method(name).source
    assert (
        re.search(r" et al\., .*\b20\d\d\b", source)
        if name != "values"
        else source == "the last block's values, projected"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_on_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def load(*args: Any, **options: Any) -> TTD:
        given.append(options)
        return TTD(encoder(options["method"]))

    monkeypatch.setitem(ttd.__dict__, "load", load)
    photo = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(photo)
    chosen = ("--method", name, "--size", 64, "--window", 48, "--templates", "none")
    found = invoke("tag", photo, "a dog on the grass", *chosen, "--json")
    assert found.exit_code == 0, found.output
    assert [word["text"] for word in json.loads(found.stdout)["words"]] == ["dog", "grass"]
    for command, asked in (("mask", ("a dog",)), ("segment", ("--tags", "dog", "grass"))):
        out = tmp_path / f"{command}.png"
        found = invoke(command, photo, *asked, *chosen, "--out", out)
        assert found.exit_code == 0, found.output
        assert out.is_file()
    data = tmp_path / "voc"
    write(data, "voc", count=2)
    asked = ("--data", data, "--model", "m", *chosen, "--refine", "none", "--images", 0)
    found = invoke("eval", "voc", *asked, "--out", tmp_path / "eval")
    assert found.exit_code == 0, found.output
    assert (
        json.loads((tmp_path / "eval" / "results.json").read_text())["settings"]["protocol"]
        == find_method(name).protocol
    )
    other = "values" if name == "maskclip" else "maskclip"
    rows = ("--model", "m", "--method", name, "--method", other, "--protocol", "default", "--templates", "none")
    found = invoke("compare", "--benchmark", f"voc={data}", *rows, "--out", tmp_path / "compare")
    assert found.exit_code == 0, found.output
    assert name in (tmp_path / "compare" / "table.md").read_text()
    assert {options["method"] for options in given} == {name, other}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", [tiny_tcl, tiny_siglip])
def test_families_with_one_form_say_so(name: str, family: Any) -> None:
    with pytest.raises(ModelError, match="one way from features to maps: leave the method out"):
        family().with_method(name)
