from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tolerance import assert_close
from ttd.training.augment import PIXELS, draws, inside_cells, normalised, random_crop
from ttd.training.config import Augment

MEAN, STD = (0.2, 0.5, 0.7), (0.3, 0.2, 0.1)


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: a pixel tells where it came from."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), x * 0 + 255], -1)
    return Image.fromarray(values.round().astype(np.uint8))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 10**6), st.integers(8, 90), st.integers(0, 60))
def test_a_crop_is_a_part_of_the_image(width: int, height: int, item: int, shortest: int, more: int) -> None:
    options = Augment(shortest, shortest + more, 64)
    crop = random_crop(gradient(width, height), options, draws(1, 0, item, PIXELS))
    top, left, bottom, right = crop.rect
    assert 0 <= top < bottom <= 64
    assert 0 <= left < right <= 64
    assert max(bottom - top, right - left) <= min(64, shortest + more)
    assert max(bottom - top, right - left) >= min(64, shortest)
    outside = np.ones((64, 64), bool)
    outside[top:bottom, left:right] = False
    assert not crop.pixels[outside].any()
    part = crop.pixels[top:bottom, left:right].astype(int)
    assert (part[..., 2] == 255).all()  # a colour of the image, no padding inside
    assert (np.diff(part[..., 0], axis=1) >= -1).all()  # upright and not mirrored
    assert (np.diff(part[..., 1], axis=0) >= -1).all()


def test_every_size_and_place_is_drawn() -> None:
    image, options = gradient(100, 60), Augment(32, 128, 64)
    crops = [random_crop(image, options, draws(0, 0, item, PIXELS)) for item in range(300)]
    widths = {crop.rect[3] - crop.rect[1] for crop in crops}
    assert min(widths) <= 34
    assert max(widths) == 64
    smaller = [crop.rect for crop in crops if crop.rect[3] - crop.rect[1] < 50]
    assert {rect[1] == 0 for rect in smaller} == {True, False}  # not always in the same corner
    whole = [crop for crop in crops if crop.rect[3] - crop.rect[1] == 64]
    lefts = [int(crop.pixels[crop.rect[0], 0, 0]) for crop in whole]
    assert max(lefts) - min(lefts) > 60


def test_mirroring() -> None:
    image = gradient(64, 64)
    for flip, sign in ((0.0, 1), (1.0, -1)):
        crop = random_crop(image, Augment(64, 64, 64, flip), draws(0, 0, 0, PIXELS))
        assert np.sign(int(crop.pixels[0, -1, 0]) - int(crop.pixels[0, 0, 0])) == sign


def test_draws_depend_on_seed_epoch_item_and_purpose_alone() -> None:
    def first(*key: int) -> float:
        return float(draws(*key).random())

    assert first(0, 0, 5, 0) == first(0, 0, 5, 0)
    keys = [(0, 0, 5, 0), (1, 0, 5, 0), (0, 1, 5, 0), (0, 0, 6, 0), (0, 0, 5, 1)]
    assert len({first(*key) for key in keys}) == len(keys)


def test_outside_is_the_mean_colour() -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    rects = torch.tensor([[1, 2, 5, 8], [0, 0, 8, 8]])
    values = normalised(pixels, rects, MEAN, STD)
    for b in range(2):
        for y in range(8):
            for x in range(8):
                top, left, bottom, right = rects[b].tolist()
                if top <= y < bottom and left <= x < right:
                    expected = (pixels[b, y, x].numpy() / 255 - MEAN) / STD
                    assert_close(values[b, :, y, x], expected, 3, scale=1 / min(STD))
                else:
                    assert not values[b, :, y, x].any()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 63), st.integers(0, 63), st.integers(1, 64), st.integers(1, 64), st.sampled_from([1, 4, 7, 64]))
def test_cells_are_inside_by_their_centre(top: int, left: int, height: int, width: int, cells: int) -> None:
    rect = (top, left, min(64, top + height), min(64, left + width))
    inside = inside_cells(torch.tensor([rect]), (cells, cells), 64)[0]
    assert inside.any()
    centres = (np.arange(cells) + 0.5) * 64 / cells
    rows = (centres >= rect[0]) & (centres < rect[2])
    columns = (centres >= rect[1]) & (centres < rect[3])
    if rows.any() and columns.any():
        assert np.array_equal(inside.numpy(), rows[:, None] & columns[None, :])
    else:
        assert 1 <= inside.sum() <= cells
