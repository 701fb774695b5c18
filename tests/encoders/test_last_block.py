from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.encoders import numpy_clip
from tests.tiny_models import random_pixels, tiny_clip, tiny_clip_model
from tests.tolerance import PIXELS, assert_close, tower
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.last_block import gaussian_window
from ttd.encoders.methods import LastBlock, Method, find_method
from ttd.errors import InputError, ModelError

GRID = (3, 5)


def window(sigma: float) -> np.ndarray:
    """NACLIP's window by definition, the class token first and without weight."""
    cells = [(i, j) for i in range(GRID[0]) for j in range(GRID[1])]
    out = np.zeros((1 + len(cells), 1 + len(cells)))
    for row, (i, j) in enumerate(cells):
        for column, (k, l2) in enumerate(cells):
            out[1 + row, 1 + column] = np.exp(-((i - k) ** 2 + (j - l2) ** 2) / (2 * sigma**2))
    return out


CASES = {
    "maskclip": ("maskclip", "identity", True, 0),
    "sclip": ("sclip", "qq+kk", True, 0),
    "clearclip": ("clearclip", "qq", False, 0),
    "naclip": ("naclip", "kk", False, window(5)),
    "values": ("values", "identity", False, 0),
    "two terms, narrow window": (Method("mine", "a test", LastBlock("qq+kk", 1.5, True)), "qq+kk", True, window(1.5)),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_method_is_the_formula(name: str) -> None:
    method, weights, keep, bias = CASES[name]
    encoder = CLIPEncoder(tiny_clip_model(layers=3, vocab=64), method=method)
    p = {n: v.double().numpy() for n, v in encoder.backbone.state_dict().items()}
    pixels = random_pixels(2, GRID[0] * 16, GRID[1] * 16)
    extra = 0.1 if name in ("sclip", "clearclip", "naclip") else 0.0  # as these authors resize positions
    features, terms = encoder.encode_image(pixels), tower(blocks=3, width=64, tokens=16, first=PIXELS)
    for image, dense, pooled in zip(pixels.double().numpy(), features.dense, features.pooled, strict=True):
        expected_dense, expected_pooled = numpy_clip.encode(image, p, 16, 2, weights, keep, bias, extra)
        assert_close(dense.flatten(1).T, expected_dense, terms)
        assert_close(pooled, expected_pooled, terms)


@torch.no_grad()
def test_methods_differ_from_each_other() -> None:
    pixels = random_pixels(1)
    dense = [
        tiny_clip(method=name).encode_pixels(pixels) for name in ("maskclip", "sclip", "clearclip", "naclip", "values")
    ]
    for i, a in enumerate(dense):
        assert all((a - b).abs().max() > 1e-3 for b in dense[:i])


def test_gaussian_window_leaves_the_class_token_alone() -> None:
    assert_close(gaussian_window(GRID, 5), window(5), 2)  # a sum of two squares, its exponential


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match="maskclip"):
        find_method("mask-clip")
    with pytest.raises(InputError, match="qq"):
        LastBlock("qk")
    with pytest.raises(InputError, match="Gaussian"):
        LastBlock("identity", gaussian_sigma=5)
    with pytest.raises(InputError, match="Gaussian"):
        LastBlock("kk", gaussian_sigma=0)
