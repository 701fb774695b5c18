"""Outlines: of a mask and back, against pixels that are looked at one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Triangle
from scipy import ndimage

from tests.annotate.samples import SIZE, left_half, open_annotations
from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.masks import filled, traced
from ttd.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 20), st.integers(1, 20), st.sampled_from([0.0, 0.2, 0.7, 1.0]))
def test_a_mask_of_few_pixels_comes_back_within_the_bound(seed: int, height: int, width: int, share: float) -> None:
    """Corners lie at most 0.75 pixels beside the edge, so no pixel that is surrounded by its own kind changes; beyond
    the image there is nothing of the mask."""
    mask = np.random.default_rng(seed).random((height, width)) < share
    back = filled(traced(mask, most=10**6), mask.shape)
    surrounded = [
        ndimage.binary_erosion(part, np.ones((3, 3)), border_value=int(part is not mask)) for part in (mask, ~mask)
    ]
    assert not (surrounded[0] & ~back).any()
    assert not (surrounded[1] & back).any()
    assert back.any() == mask.any()


def test_rectangles_holes_and_the_whole_image_are_exact() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:30, 10:50], mask[12:20, 20:30] = True, False
    outlines = traced(mask)
    assert sorted(map(len, outlines)) == [4, 4]
    assert (min(outlines[0]), max(outlines[0])) == ((9.5, 4.5), (49.5, 29.5))
    assert np.array_equal(filled(outlines, mask.shape), mask)
    assert np.array_equal(filled(traced(mask | True), mask.shape), mask | True)
    assert traced(mask & False) == ()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 25), st.floats(-3, 25)), min_size=3, max_size=8))
def test_filling_is_what_matplotlib_finds_inside(corners: list[tuple[float, float]]) -> None:
    """Also where the line crosses itself: there the parity counts."""
    rows, columns = np.mgrid[:20, :22]
    centres = np.column_stack([columns.ravel(), rows.ravel()])
    parity = np.zeros(len(centres), int)
    for number in range(1, len(corners) - 1):  # the triangles of a fan: their parities add up to the polygon's
        parity += Triangle([corners[0], corners[number], corners[number + 1]]).contains_points(centres)
    wrong = filled([tuple(corners)], rows.shape).ravel() != (parity % 2 == 1)
    closed = np.array([*corners, corners[0]])
    for centre in centres[wrong]:  # on a line of the fan the two may differ
        ends = np.vstack([np.stack([closed[:-1], closed[1:]], 1), [(corners[0], corner) for corner in corners]])
        along, to = ends[:, 1] - ends[:, 0], centre - ends[:, 0]
        part = np.clip((to * along).sum(1) / np.maximum((along**2).sum(1), 1e-300), 0, 1)
        assert np.hypot(*(to - part[:, None] * along).T).min() < 1e-6


def test_a_ragged_mask_keeps_few_corners() -> None:
    rows, columns = np.mgrid[:300, :400]
    mask = (rows - 150) ** 2 + (columns - 200) ** 2 < 100**2
    mask ^= np.random.default_rng(0).random(mask.shape) < 0.02
    outlines = traced(mask, most=100)
    assert 3 <= sum(map(len, outlines)) <= 100
    disc = ndimage.binary_opening(mask, iterations=2)
    back = filled(outlines, mask.shape)
    assert (back & disc).sum() / (back | disc).sum() > 0.9


@pytest.fixture
def annotations(tmp_path: Path) -> AnnotationSet:
    return open_annotations(tmp_path / "data", tmp_path / "set")


def test_an_outlined_word_is_edited_undone_and_proposed_again(annotations: AnnotationSet) -> None:
    opened, _ = annotations.open_next(-1, "tab")
    assert opened is not None
    before = opened.masks()["red"]
    assert np.array_equal(before, left_half())
    opened.outline()
    assert sorted((opened.prompts.outlines or ())[0]) == [(-0.5, -0.5), (-0.5, 31.5), (23.5, -0.5), (23.5, 31.5)]
    assert np.array_equal(opened.masks()["red"], before)
    opened.outline((((3.5, 3.5), (11.5, 3.5), (11.5, 9.5), (3.5, 9.5)),))
    small = np.zeros(SIZE, bool)
    small[4:10, 4:12] = True
    assert np.array_equal(opened.masks()["red"], small)
    assert np.array_equal(opened.masks()["green"], ~left_half())
    opened.stroke([(30, 20)], 2, True)  # painted over the outline, and outlined with it
    opened.outline()
    assert opened.prompts.dabs == ()
    assert len(opened.prompts.outlines or ()) == 2
    for _ in range(3):
        opened.undo()
    assert np.array_equal(opened.masks()["red"], before)
    opened.undo()
    assert opened.prompts.outlines is None
    opened.outline()
    opened.point(5, 5, True)
    assert opened.prompts.outlines is None
    opened.clear()
    with pytest.raises(InputError, match="no mask to outline"):
        opened.outline()


def test_a_mask_that_was_changed_elsewhere_has_its_own_outline(annotations: AnnotationSet) -> None:
    opened, _ = annotations.open_next(-1, "tab")
    assert opened is not None
    opened.outline()
    record = annotations.accept(opened)
    other = np.zeros(SIZE, bool)
    other[10:20, 5:40] = True
    annotations.store.put(replace(record, masks={**record.masks, "red": other}), record.version)
    again = annotations.open(0, "tab")
    assert np.array_equal(again.masks()["red"], other)
    assert sorted((again.prompts.outlines or ())[0]) == [(4.5, 9.5), (4.5, 19.5), (39.5, 9.5), (39.5, 19.5)]
