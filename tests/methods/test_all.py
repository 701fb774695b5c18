"""What every method promises: any size, batches, windows, a few blocks, gradients, and one question after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tiny_models import random_pixels, tiny_clip
from tests.tolerance import assert_close
from ttd.encoders.methods import find_method
from ttd.inference.options import Options
from ttd.model import TTD

NAMES = ("gem", "sc-clip", "clip-surgery", "cliptrase", "cliptrase-voc20")
IMAGE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
OPTIONS = Options(size=64, window=48, stride=32, flip=True)


@pytest.mark.parametrize("name", NAMES)
def test_tags_masks_and_labels_of_any_image(name: str) -> None:
    model = TTD(tiny_clip(method=name))
    tagging = model.tag(IMAGE, "a dog on the grass by the sea", options=OPTIONS)
    assert [word.text for word in tagging.words] == ["dog", "grass", "sea"]
    assert all(np.isfinite(word.score) for word in tagging.words)
    labels = model.segment(IMAGE, ["dog", "grass", "sea"], OPTIONS).label_map
    assert labels.shape == (80, 120)
    assert model.heatmaps(IMAGE, ["dog"], OPTIONS).shape == (1, 80, 120)
    assert model.caption_mask(IMAGE, "a dog", options=OPTIONS).shape == (80, 120)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", [1, 2, 7])
def test_images_of_a_batch_do_not_see_each_other(name: str, layers: int) -> None:
    encoder = tiny_clip(method=name, layers=layers)
    pixels, text = random_pixels(2, 64, 112), torch.randn(3, 48)
    both = encoder.encode_image(pixels)
    assert both.dense.isfinite().all()
    for number, one in enumerate(pixels):
        alone = encoder.encode_image(one[None])
        assert_close(alone.dense[0], both.dense[number], 2000)
        found, expected = (encoder.similarity(features, text) for features in (alone, both))
        assert found.isfinite().all()
        if not name.startswith("cliptrase"):  # where a vote is close, a rounding decides it
            assert_close(found[0], expected[number], 2000)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_training_changes(name: str) -> None:
    encoder = tiny_clip(method=name)
    pixels = random_pixels(2, 64, 96)
    sim = encoder.similarity(encoder.encode_for_similarity(pixels), torch.randn(3, 48))
    sim.square().sum().backward()
    targets = encoder.lora_targets()
    assert any(target.startswith("vision_model") for target in targets)
    modules = {target: encoder._clip.get_submodule(target) for target in targets if target.startswith("vision_model")}
    for target, module in modules.items():
        gradient = module.weight.grad
        assert gradient is not None, target
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0, target


@pytest.mark.parametrize("name", NAMES)
def test_it_names_its_source(name: str) -> None:
    method = find_method(name)
    assert method.name == name
    assert method.source
