import numpy as np
import torch

from tests.tolerance import assert_close, assert_same_decisions, float_tolerance, label_margin
from ttd.inference.masks import (
    nearest,
    pixel_labels,
    pixel_mask,
    pixel_values,
)
from ttd.inference.resizing import resize

MAPS = torch.rand(3, 6, 5)


def test_values_masks_and_labels_agree_with_enlarging_first() -> None:
    whole, rounding = resize(MAPS, (31, 17)).numpy(), float_tolerance(torch.float32, 4)
    assert_close(pixel_values(MAPS, (31, 17)), whole, 4)
    assert_same_decisions(pixel_mask(MAPS[1], (31, 17), 0.5), whole[1] >= 0.5, whole[1] - 0.5, rounding)
    labels = pixel_labels(MAPS, (31, 17), None)
    assert labels.dtype == np.uint16
    assert_same_decisions(labels, whole.argmax(0), label_margin(whole), rounding)
    expected = np.where(whole.max(0) >= 0.7, whole.argmax(0) + 1, 0)
    assert_same_decisions(pixel_labels(MAPS, (31, 17), 0.7), expected, label_margin(whole, 0.7), rounding)


def test_nearest_takes_the_cell_under_the_centre() -> None:
    labels = np.arange(6, dtype=np.uint16).reshape(2, 3)
    assert np.array_equal(nearest(labels, (4, 6)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(nearest(labels, (2, 3)), labels)
    assert np.array_equal(nearest(labels, (1, 1)), [[4]])
