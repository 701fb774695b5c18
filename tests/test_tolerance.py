"""The tolerances let roundings through and nothing else: sums in any order pass, small faults of a model do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny_models import random_pixels, tiny_clip, tiny_siglip, tiny_tcl
from tests.tolerance import (
    TINY_IMAGE,
    TINY_TCL,
    TINY_TEXT,
    TRAINING_STEP,
    assert_close,
    assert_same_decisions,
    assert_same_record,
    assert_same_training,
    float_tolerance,
    label_margin,
)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5000), st.integers(0, 2**31))
def test_any_order_of_a_sum_passes_and_a_lost_term_does_not(terms: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0.5, 1, terms).astype(np.float32)
    exact = values.astype(np.float64).sum()
    one_by_one = np.cumsum(values, dtype=np.float32)[-1]
    eight_lanes = np.add.reduce([np.cumsum(values[i::8], dtype=np.float32)[-1:].sum() for i in range(8)])
    for found in (one_by_one, eight_lanes, values.sum()):
        assert_close(found, exact, terms)
    with pytest.raises(AssertionError, match="differ by more"):
        assert_close(values[1:].sum(), exact, terms)


@torch.no_grad()
def outputs(encoder: Any) -> list[Tensor]:
    return [encoder.encode_pixels(random_pixels(1)), encoder.encode_text(["a dog"])]


MODELS = {"clip": (tiny_clip, TINY_IMAGE), "siglip": (tiny_siglip, TINY_IMAGE), "tcl": (tiny_tcl, TINY_TCL)}


@pytest.mark.parametrize("name", MODELS)
def test_a_weight_matrix_that_is_a_thousandth_wrong_is_seen(name: str) -> None:
    """Every matrix that the outputs depend on, one at a time; and with none changed all is well."""
    make, image_terms = MODELS[name]
    expected, terms = outputs(make()), (image_terms, TINY_TEXT)
    encoder: Any = make()
    for found, wanted, many in zip(outputs(encoder), expected, terms, strict=True):
        assert_close(found, wanted, many)
    changed = 0
    for parameter in encoder.parameters():
        if parameter.ndim != 2 or len(parameter) > 1000:
            continue
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.mul_(1 + 1e-3 * torch.randn(parameter.shape))
        for found, wanted, many in zip(outputs(encoder), expected, terms, strict=True):
            if not torch.equal(found, wanted):  # the other tower's, or a query that the last block leaves out
                changed += 1
                with pytest.raises(AssertionError, match="differ by more"):
                    assert_close(found, wanted, many)
        with torch.no_grad():
            parameter.copy_(before)
    assert changed > 15


def test_a_single_weight_of_the_wrong_sign_and_half_precision_are_seen() -> None:
    expected = outputs(tiny_clip())
    encoder = tiny_clip()
    with torch.no_grad():
        weight = encoder.backbone.get_parameter("vision_model.encoder.layers.0.mlp.fc1.weight")
        weight[3, 5] *= -1
    for found in (outputs(encoder)[0], outputs(tiny_clip().to(torch.bfloat16))[0]):
        with pytest.raises(AssertionError, match="differ by more"):
            assert_close(found, expected[0], TINY_IMAGE)


def test_what_is_not_finite_and_shapes_have_to_agree() -> None:
    values = [1.0, np.inf, np.nan]
    assert_close(values, values, 1)
    for wrong in ([1.0, -np.inf, np.nan], [1.0, np.inf, 0.0], [1.0, np.nan, np.nan], [np.nan, np.inf, np.nan]):
        with pytest.raises(AssertionError, match="differ by more"):
            assert_close(wrong, values, 1)
    with pytest.raises(AssertionError, match="shapes"):
        assert_close([1.0], [[1.0]], 1)


def test_records_differ_in_floats_alone() -> None:
    expected = {"id": "a", "scores": [0.5, 0.25], "count": 3}
    assert_same_record({"id": "a", "scores": [np.nextafter(np.float32(0.5), 1), 0.25], "count": 3}, expected, 1)
    for wrong in ({"id": "b"}, {"count": 4}, {"scores": [0.5]}, {"scores": [0.5, 0.2501]}):
        with pytest.raises(AssertionError):
            assert_same_record({**expected, **wrong}, expected, 1)


def test_labels_may_differ_only_where_it_is_too_close_to_call() -> None:
    maps = np.random.default_rng(0).random((3, 40, 50)).astype(np.float32)
    maps[0, 3, 4] = maps[1, 3, 4] = 0.9
    labels = maps.argmax(0)
    margin = label_margin(maps)
    other = labels.copy()
    other[3, 4] = 1 - labels[3, 4]
    assert_same_decisions(other, labels, margin, 1e-6)
    other[7, 7] = (labels[7, 7] + 1) % 3
    with pytest.raises(AssertionError, match="1 of 2000 decisions differ"):
        assert_same_decisions(other, labels, margin, 1e-6)
    with pytest.raises(AssertionError, match="too close to be compared"):
        assert_same_decisions(labels, labels, margin, 0.1)


def test_margin_of_a_background() -> None:
    maps = np.array([[0.9, 0.6, 0.2], [0.1, 0.55, 0.25]])[:, None]
    np.testing.assert_allclose(label_margin(maps, 0.5), [[0.4, 0.05, 0.25]])
    np.testing.assert_allclose(label_margin(maps), [[0.8, 0.05, 0.05]])
    np.testing.assert_allclose(label_margin(maps[:1], 0.5), [[0.4, 0.1, 0.3]])


def test_trainings_may_differ_in_few_parameters_only() -> None:
    draw = np.random.default_rng(0)
    expected = {"a": draw.normal(size=(40, 50)), "b": draw.normal(size=1000)}
    delta = float_tolerance(torch.float32, TRAINING_STEP)
    near = {name: values + 2 * 0.01 * delta * draw.uniform(-9, 9, values.shape) for name, values in expected.items()}
    near["b"][5] += 0.04  # turned round in both steps, as a gradient near zero may
    assert_same_training(near, expected, lr=0.01, steps=2)
    for share, named in ((0.01, "0.1% of"), (0.2, "10.0% of")):  # of the parameters went the other way
        wrong = {name: values + 0.04 * (draw.random(values.shape) < share) for name, values in near.items()}
        with pytest.raises(AssertionError, match=named):
            assert_same_training(wrong, expected, lr=0.01, steps=2)
    with pytest.raises(AssertionError, match=r"10\.0% of the parameters"):
        assert_same_training({n: v + 1e-4 for n, v in expected.items()}, expected, lr=0.01, steps=2)
