import numpy as np
import torch
from PIL import Image

from ttd.inference.masks import (
    nearest,
    pixel_labels,
    pixel_mask,
    pixel_values,
    sam_labels,
    sam_masks,
    working_image,
)
from ttd.inference.resizing import resize

MAPS = torch.rand(3, 6, 5)


class Eraser:
    """Stands in for SAM-HQ: keeps the upper half of the first mask and all of the others."""

    def refine(self, image: Image.Image, masks: np.ndarray, *, exclusive: bool = True) -> tuple[np.ndarray, np.ndarray]:
        assert masks.shape[1:] == (image.height, image.width)
        masks = masks.copy()
        masks[0, image.height // 2 :] = False
        return masks, np.ones(len(masks), np.float32)


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


def test_large_images_are_refined_at_a_bounded_size() -> None:
    assert working_image(Image.new("RGB", (3000, 10))).size == (1024, 3)
    assert working_image(Image.new("RGB", (1, 9000))).size == (1, 1024)
    small = Image.new("RGB", (100, 50))
    assert working_image(small) is small


def test_what_sam_leaves_over_is_background_or_keeps_its_label() -> None:
    image = Image.new("RGB", (40, 20))
    maps = torch.zeros(2, 1, 2)
    maps[0, 0, 0] = maps[1, 0, 1] = 1.0
    with_background = sam_labels(Eraser(), image, maps, 0.5)  # type: ignore[arg-type]
    assert with_background[0, 0] == 1
    assert with_background[-1, 0] == 0
    assert with_background[-1, -1] == 2
    without = sam_labels(Eraser(), image, maps, None)  # type: ignore[arg-type]
    assert without[0, 0] == without[-1, 0] == 0
    assert without[-1, -1] == 1
    masks = sam_masks(Eraser(), image, maps, 0.5)  # type: ignore[arg-type]
    assert masks[0, 0, 0]
    assert not masks[0, -1, 0]
