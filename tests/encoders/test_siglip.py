from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from transformers import SiglipConfig, SiglipModel

from tests.tiny_models import random_pixels, tiny_siglip, tiny_siglip_model
from tests.tolerance import TINY_IMAGE, TINY_TEXT, assert_close
from ttd.encoders import SigLIPEncoder
from ttd.errors import InputError, ModelError


@torch.no_grad()
def test_dense_features_are_the_formula() -> None:
    encoder, pixels = tiny_siglip(), random_pixels(2, 48, 80)
    vision = encoder.backbone.vision_model
    x = vision(pixels, interpolate_pos_encoding=True).last_hidden_state.double().numpy()
    p = {name: t.double().numpy() for name, t in vision.head.state_dict().items()}
    d = x.shape[-1]
    v = x @ p["attention.in_proj_weight"][2 * d :].T + p["attention.in_proj_bias"][2 * d :]
    y = v @ p["attention.out_proj.weight"].T + p["attention.out_proj.bias"]
    centred = y - y.mean(-1, keepdims=True)
    z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + vision.config.layer_norm_eps)
    z = z * p["layernorm.weight"] + p["layernorm.bias"]
    z = z @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
    z = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    y = y + z @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    dense = encoder.encode_image(pixels).dense
    assert dense.shape == (2, 64, 3, 5)
    assert_close(dense.flatten(2).transpose(1, 2), y, TINY_IMAGE)
    assert_close(encoder.encode_pixels(pixels), dense, TINY_IMAGE)


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
@torch.no_grad()
def test_pooled_is_that_of_transformers(size: tuple[int, int]) -> None:
    encoder, pixels = tiny_siglip(), random_pixels(2, *size)
    theirs = encoder.backbone.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    assert_close(encoder.encode_image(pixels).pooled, normalize(theirs, dim=-1), TINY_IMAGE)


@torch.no_grad()
def test_text_is_lower_cased_padded_and_pooled_last() -> None:
    encoder = tiny_siglip()
    ids, cut = encoder.tokenize(["a photo dog", "Dog", "dog " * 64])
    assert ids.shape == (3, 64)
    assert ids[1].tolist() == [3, 1] + [0] * 62
    assert cut == [False, False, True]
    assert ids[2, -1] == 1
    padded = encoder.tokenizer(["a photo dog", "dog"], padding="max_length", return_tensors="pt").input_ids
    theirs = encoder.backbone.get_text_features(padded).pooler_output
    assert_close(encoder.encode_text(["a photo dog", "Dog"]), normalize(theirs, dim=-1), TINY_TEXT)
    assert encoder.encode_text([]).shape == (0, 64)
    with pytest.raises(InputError, match="64"):
        encoder.embed_tokens(ids[:, :10])


@torch.no_grad()
def test_folder_round_trip(tmp_path: Path) -> None:
    encoder = tiny_siglip()
    encoder.backbone.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    loaded = SigLIPEncoder.from_pretrained(tmp_path)
    assert loaded.fingerprint() == encoder.fingerprint()
    # The weights are the same; read from a file they lie elsewhere in memory, and another kernel may run.
    assert_close(loaded.encode_text(["a dog"]), encoder.encode_text(["a dog"]), TINY_TEXT)
    assert_close(loaded.logit_scale, float(encoder.backbone.logit_scale.exp()), 1)
    assert loaded.mean == (0.5, 0.5, 0.5)


def test_gradients_reach_every_layer_that_lora_adapts() -> None:
    encoder = tiny_siglip()
    text = encoder.encode_text(["dog", "a cat"])
    encoder.similarity(encoder.encode_image(random_pixels()), text).square().sum().backward()
    modules = dict(encoder.backbone.named_modules())
    targets = encoder.lora_targets()
    assert len(targets) == 8
    assert all(modules[name].weight.grad.abs().max() > 0 for name in targets)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        SigLIPEncoder(tiny_siglip_model()).tokenize(["dog"])
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    headless = SiglipConfig(
        text_config={**small, "vocab_size": 9, "projection_size": 32},
        vision_config={**small, "patch_size": 16, "image_size": 32, "vision_use_head": False},
    )
    with pytest.raises(ModelError, match="pooling head"):
        SigLIPEncoder(SiglipModel(headless))
    with pytest.raises(InputError, match="patch size 16"):
        tiny_siglip().encode_pixels(random_pixels(1, 40, 64))
