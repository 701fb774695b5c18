import numpy as np
import torch

from ttd.inference.masks import (
    nearest,
    pixel_labels,
    pixel_mask,
    pixel_values,
)
from ttd.inference.resizing import resize

MAPS = torch.rand(3, 6, 5)


def test_values_masks_and_labels_agree_with_enlarging_first() -> None:
    whole = resize(MAPS, (31, 17)).numpy()
    assert np.array_equal(pixel_values(MAPS, (31, 17)), whole)
    assert np.array_equal(pixel_mask(MAPS[1], (31, 17), 0.5), whole[1] >= 0.5)
    labels = pixel_labels(MAPS, (31, 17), None)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, whole.argmax(0))
    expected = np.where(whole.max(0) >= 0.7, whole.argmax(0) + 1, 0)
    assert np.array_equal(pixel_labels(MAPS, (31, 17), 0.7), expected)


def test_nearest_takes_the_cell_under_the_centre() -> None:
    labels = np.arange(6, dtype=np.uint16).reshape(2, 3)
    assert np.array_equal(nearest(labels, (4, 6)), labels.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(nearest(labels, (2, 3)), labels)
    assert np.array_equal(nearest(labels, (1, 1)), [[4]])
