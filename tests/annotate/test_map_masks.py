"""Masks from our own map: against a flood fill written here, and what the rule promises."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttd.annotate.masks import Dab, Prompts, mask_from_map, painted


def flood(allowed: np.ndarray, spot: tuple[int, int]) -> np.ndarray:
    """The part of `allowed` that a king reaches from `spot`."""
    reached = np.zeros_like(allowed)
    waiting = [spot] if allowed[spot] else []
    while waiting:
        row, column = waiting.pop()
        if not (0 <= row < allowed.shape[0] and 0 <= column < allowed.shape[1]):
            continue
        if reached[row, column] or not allowed[row, column]:
            continue
        reached[row, column] = True
        waiting += [(row + i, column + j) for i, j in product((-1, 0, 1), repeat=2)]
    return reached


def by_hand(heat: np.ndarray, prompts: Prompts, threshold: float) -> np.ndarray:
    """The rule of the module, pixel by pixel."""
    height, width = heat.shape
    boxed, level = np.zeros(heat.shape, bool), np.full(heat.shape, np.inf)
    for box in prompts.boxes:
        cells = [(r, c) for r in range(height) for c in range(width)
                 if box.top <= r <= box.bottom and box.left <= c <= box.right]  # fmt: skip
        values = [heat[cell] for cell in cells]
        its = threshold if max(values) >= threshold else (float(min(values)) + float(max(values))) / 2
        for cell in cells:
            boxed[cell], level[cell] = True, min(level[cell], np.float32(its))
    if not prompts.boxes:
        boxed[:], level[:] = True, np.float32(threshold)
    inside = [(int(p.y), int(p.x)) for p in prompts.points if p.inside]
    outside = [(int(p.y), int(p.x)) for p in prompts.points if not p.inside]
    mask = boxed & (heat >= level)
    if inside:
        mask = np.zeros(heat.shape, bool)
        for spot in inside:
            here = np.minimum(level, heat[spot]) if boxed[spot] else np.full(heat.shape, min(threshold, heat[spot]))
            mask |= flood((boxed if boxed[spot] else True) & (heat >= here.astype(np.float32)), spot)
    for r, c in product(range(height), range(width)):
        near = [(r - y) ** 2 + (c - x) ** 2 for y, x in inside]
        if near and any((r - y) ** 2 + (c - x) ** 2 < min(near) for y, x in outside):
            mask[r, c] = False
    if not inside:
        for spot in outside:
            mask &= ~flood(mask, spot)
    return mask


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, Prompts]:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    values = draw(st.lists(st.integers(0, 8), min_size=height * width, max_size=height * width))
    prompts = Prompts()
    rows, columns = st.integers(0, height - 1), st.integers(0, width - 1)
    for _ in range(draw(st.integers(0, 3))):
        prompts = prompts.with_point(draw(columns), draw(rows), draw(st.booleans()))
    for _ in range(draw(st.integers(0, 2))):
        prompts = prompts.with_box(draw(columns), draw(rows), draw(columns), draw(rows))
    return np.array(values, np.float32).reshape(height, width) / 8, prompts


@settings(max_examples=300, deadline=None)
@given(questions(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_equals_the_rule_pixel_by_pixel(question: tuple[np.ndarray, Prompts], threshold: float) -> None:
    heat, prompts = question
    np.testing.assert_array_equal(mask_from_map(heat, prompts, threshold), by_hand(heat, prompts, threshold))


def two_hills() -> np.ndarray:
    heat = np.zeros((20, 40), np.float32)
    heat[5:15, 3:13] = heat[5:15, 27:37] = 0.9
    return heat


def test_a_point_takes_its_hill_and_a_point_outside_drops_one() -> None:
    heat = two_hills()
    assert mask_from_map(heat, Prompts(), 0.5).sum() == 200
    left = mask_from_map(heat, Prompts().with_point(5, 7, True), 0.5)
    assert left.sum() == 100
    assert left[7, 5]
    assert np.array_equal(left, mask_from_map(heat, Prompts().with_point(30, 7, False), 0.5))


def test_points_inside_are_in_and_points_outside_are_not() -> None:
    heat = np.random.default_rng(0).random((30, 30), np.float32)
    prompts = Prompts().with_point(3, 4, True).with_point(20, 20, True).with_point(21, 20, False)
    mask = mask_from_map(heat, prompts, 0.9)
    assert mask[4, 3]
    assert mask[20, 20]
    assert not mask[20, 21]


def test_coordinates_outside_the_image_are_held_in() -> None:
    assert mask_from_map(two_hills(), Prompts().with_point(99, -5, True).with_box(-9, -9, 99, 99), 0.5).all()


def test_a_persons_threshold_goes_first() -> None:
    assert mask_from_map(two_hills(), Prompts(threshold=0.95), 0.5).sum() == 0


@pytest.mark.parametrize("inside", [True, False])
def test_brush_paints_discs(inside: bool) -> None:
    before = np.full((30, 40), not inside)
    after = painted(before, [Dab(10, 12, 5, inside), Dab(39, 29, 3, inside)])
    rows, columns = np.mgrid[:30, :40]
    discs = ((rows - 12) ** 2 + (columns - 10) ** 2 <= 25) | ((rows - 29) ** 2 + (columns - 39) ** 2 <= 9)
    assert np.array_equal(after == inside, discs)
    assert np.array_equal(before, np.full((30, 40), not inside))


def test_later_dabs_go_over_earlier_ones() -> None:
    mask = painted(np.zeros((9, 9), bool), [Dab(4, 4, 3, True), Dab(4, 4, 1, False)])
    assert not mask[4, 4]
    assert mask[4, 7]
    assert painted(np.zeros((3, 3), bool), [Dab(1, 1, 0, True)]).sum() == 1
    assert not painted(np.zeros((3, 3), bool), [Dab(-50, 90, 4, True)]).any()
