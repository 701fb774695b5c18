"""DenseCRF: its unary by hand, its inference against a dense mean field on a small image."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extras import needs
from tests.tolerance import assert_close, float_tolerance, label_margin
from ttd.errors import InputError, MissingExtra
from ttd.refine import crf
from ttd.refine.crf import unary_probabilities


def mean_field(image: np.ndarray, p: np.ndarray, iterations: int, kernels: list[tuple[float, ...]]) -> np.ndarray:
    """Mean field with full kernels [HW,HW], each (weight, sigma in pixels, sigma in grey levels or inf)."""
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(float)
    colours = image.reshape(-1, 3).astype(float)
    unary = -np.log(np.maximum(p.reshape(len(p), -1), 1e-5))
    smooth = np.zeros((height * width, height * width))
    for weight, sigma, grey in kernels:
        distance = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2) / sigma**2
        distance += ((colours[:, None] - colours) ** 2).sum(-1) / grey**2
        kernel = np.exp(-distance / 2)
        root = 1 / np.sqrt(kernel.sum(1))
        smooth += weight * root[:, None] * kernel * root
    q = np.exp(-unary) / np.exp(-unary).sum(0)
    for _ in range(iterations):
        energy = -unary + q @ smooth
        q = np.exp(energy - energy.max(0))
        q /= q.sum(0)
    return q.reshape(p.shape)


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    """An image of two flat halves and a noisy map of the right one; not square, to tell H from W."""
    rng = np.random.default_rng(0)
    image = np.full((8, 10, 3), 40, np.uint8)
    image[:, 5:] = 200
    truth = np.zeros((8, 10), np.float32)
    truth[:, 5:] = 1
    return image, np.clip(0.3 + 0.4 * truth + rng.normal(0, 0.15, truth.shape), 0, 1).astype(np.float32)


def test_unary_of_one_map_is_the_map_and_its_rest() -> None:
    m = np.array([[[0.0, 0.2, 1.0]]], np.float32)
    assert_close(unary_probabilities(m), np.concatenate([m, 1 - m]), 2)


def test_unary_of_several_maps_by_hand() -> None:
    maps = np.array([[[0.6, 0.1]], [[0.3, 0.2]]], np.float32)
    wanted = np.array([[[0.6 / 1.3, 0.1 / 1.1]], [[0.3 / 1.3, 0.2 / 1.1]], [[0.4 / 1.3, 0.8 / 1.1]]])
    assert_close(unary_probabilities(maps), wanted, 3)
    assert_close(unary_probabilities(maps, None)[:, 0, 0], [2 / 3, 1 / 3], 3)
    assert_close(unary_probabilities(np.zeros_like(maps), None), np.full_like(maps, 0.5), 3)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(1, 4), st.integers(0, 2**31))
def test_unary_keeps_the_decision_of_the_threshold(threshold: float, count: int, seed: int) -> None:
    maps = np.random.default_rng(seed).random((count, 5, 5)).astype(np.float32)
    p = unary_probabilities(maps, threshold)
    assert_close(p.sum(0), np.ones((5, 5)), 2 * (count + 1))
    # Six operations on the way, none steeper than the identity where it is decided.
    rounding = 2 * float_tolerance(torch.float32, 6)
    clear = np.abs(maps.max(0) - threshold) > rounding
    assert ((p.argmax(0) == count) == (maps.max(0) < threshold))[clear].all()
    clear &= label_margin(maps) > rounding
    assert (p[:count].argmax(0) == maps.argmax(0))[clear & (maps.max(0) > threshold)].all()


@pytest.mark.parametrize("background", [0.4, None])
def test_equals_a_dense_mean_field(scene: tuple[np.ndarray, np.ndarray], background: float | None) -> None:
    needs("crf", "pydensecrf.densecrf")
    image, one = scene
    maps = np.stack([one, (1 - one) * 0.8])
    # Weights below the defaults: there the marginals stay away from 0 and 1, where any two answers agree.
    kernels = [(0.6, 1.0, np.inf), (0.8, 8.0, 20.0)]
    weights = {"gaussian_weight": 0.6, "bilateral_weight": 0.8}
    sigmas = {"gaussian_sigma": 1.0, "bilateral_sigma": 8.0, "bilateral_colour": 20.0}
    p = unary_probabilities(maps, background)
    got = crf(image, maps, background=background, iterations=5, **weights, **sigmas)
    wanted = mean_field(image, p, 5, kernels)[:2]
    # pydensecrf filters on a permutohedral lattice, which is approximate.
    assert np.abs(got - wanted).max() < 0.02
    assert np.abs(got - wanted).mean() < 0.05 * np.abs(p[:2] - wanted).mean()


def test_cleans_a_noisy_map(scene: tuple[np.ndarray, np.ndarray]) -> None:
    needs("crf", "pydensecrf.densecrf")
    image, noisy = scene
    truth = image[..., 0] > 100
    assert ((noisy > 0.5) != truth).any()
    out = crf(image, noisy[None])
    assert out.shape == (1, 8, 10)
    assert out.dtype == np.float32
    assert ((out[0] > 0.5) == truth).all()


def test_can_overturn_single_pixels_of_a_boolean_map(scene: tuple[np.ndarray, np.ndarray]) -> None:
    needs("crf", "pydensecrf.densecrf")
    image, _ = scene
    truth = image[..., 0] > 100
    spoilt = truth.copy()
    spoilt[2, 2], spoilt[5, 8] = True, False
    assert ((crf(image, spoilt[None])[0] > 0.5) == truth).all()


def test_no_rounds_give_the_unary(scene: tuple[np.ndarray, np.ndarray]) -> None:
    needs("crf", "pydensecrf.densecrf")
    image, one = scene
    maps = np.stack([one, one / 2])
    # The energies are cut off where a label has less than 1e-5; then the three labels are divided by their sum.
    assert np.abs(crf(image, maps, iterations=0) - unary_probabilities(maps)[:2]).max() < 3 * 1e-5


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 7)])
def test_tiny_images(size: tuple[int, int]) -> None:
    needs("crf", "pydensecrf.densecrf")
    rng = np.random.default_rng(1)
    out = crf(rng.integers(0, 256, (*size, 3), np.uint8), rng.random((2, *size)))
    assert np.isfinite(out).all()
    assert out.min() >= 0
    assert out.sum(0).max() <= 1 + float_tolerance(torch.float32, 4)


@pytest.mark.parametrize(
    ("image", "maps", "options"),
    [
        (np.zeros((4, 5, 3)), np.zeros((1, 4, 5)), {}),
        (np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5)), {}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 5, 4)), {}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((0, 4, 5)), {}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5)), {"background": None}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5)), {"background": 1.0}),
        (np.zeros((4, 5, 3), np.uint8), np.full((1, 4, 5), np.nan), {}),
        (np.zeros((4, 5, 3), np.uint8), np.full((1, 4, 5), 1.5), {}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5)), {"iterations": -1}),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5)), {"bilateral_colour": 0.0}),
    ],
)
def test_refuses_bad_input(image: np.ndarray, maps: np.ndarray, options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        crf(image, maps, **options)


def test_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[crf\]'"):
        crf(np.zeros((2, 2, 3), np.uint8), np.zeros((1, 2, 2)))
