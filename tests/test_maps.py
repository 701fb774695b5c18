from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.tolerance import assert_close
from ttd.maps import norm, union

MAPS = arrays(np.float32, (2, 3, 4, 5), elements=st.floats(-1, 1, width=32))


@given(MAPS)
def test_norm_is_min_max_of_each_map(sim: np.ndarray) -> None:
    scaled = norm(torch.from_numpy(sim)).numpy()
    for i in np.ndindex(2, 3):
        low, high = float(sim[i].min()), float(sim[i].max())
        assert_close(scaled[i], (sim[i].astype(float) - low) / (high - low + 1e-6), 3)


def test_a_flat_map_becomes_zero_not_nan() -> None:
    assert norm(torch.full((1, 2, 3, 3), 0.4)).eq(0).all()


def test_norm_computes_half_precision_maps_in_float32() -> None:
    assert norm(torch.rand(1, 2, 2).half()).dtype == torch.float32
    assert norm(torch.rand(1, 2, 2).double()).dtype == torch.float64


def test_union_is_the_maximum_of_the_selected_maps_only() -> None:
    maps = torch.rand(2, 4, 3, 3)
    selected = torch.tensor([[True, False, True, False], [False, False, False, True]])
    expected = np.stack([np.maximum(maps[0, 0].numpy(), maps[0, 2].numpy()), maps[1, 3].numpy()])
    np.testing.assert_array_equal(union(maps, selected).numpy(), expected)


def test_union_of_nothing_is_zero() -> None:
    assert union(torch.rand(2, 3, 3), torch.zeros(2, dtype=torch.bool)).eq(0).all()


def test_gradients_flow_through_norm() -> None:
    sim = torch.rand(1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (sim,))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7)])
def test_norm_of_a_tiny_map_is_finite(shape: tuple[int, int]) -> None:
    assert norm(torch.rand(2, *shape)).isfinite().all()
