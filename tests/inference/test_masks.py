import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from tests.tolerance import assert_close, assert_same_decisions, float_tolerance, label_margin
from ttd.inference.masks import LabelRule, all_masks, class_maps, nearest, pixel_labels, pixel_values
from ttd.inference.stitching import Stitched

MAPS = torch.rand(3, 6, 5)


def test_values_masks_and_labels_agree_with_enlarging_first() -> None:
    whole = interpolate(MAPS[None].double(), (31, 17), mode="bilinear", align_corners=False)[0].numpy()
    rounding = float_tolerance(torch.float32, 8)
    assert_close(pixel_values(MAPS, (31, 17)), whole, 8)
    masks = all_masks(Stitched.of(MAPS[None]).blocks(0, (31, 17)), 3, (31, 17), None, 0.5)
    assert_same_decisions(masks, whole >= 0.5, whole - 0.5, rounding)
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


CLASSES = (0, 0, 1, 2, 2, 2, 3)


@pytest.mark.parametrize("values", [1, 200, 10**6])
@pytest.mark.parametrize("kept", [0, None])
@pytest.mark.parametrize("area", [None, 0.2, 0.35, 1.0])
def test_labels_of_prompts_are_those_of_the_whole_softmax(values: int, kept: int | None, area: float | None) -> None:
    """Against the rule written out over all prompts at once, whatever the blocks are."""
    generator = torch.Generator().manual_seed(3)
    size, logits = (19, 23), torch.randn(1, 7, 5, 6, generator=generator)
    asked = Stitched.of(logits)
    rule = LabelRule(CLASSES, logit_scale=3.0, prob_threshold=0.4, area_threshold=area, kept=kept)
    found = rule.labels(lambda: asked.blocks(0, size, values), size)

    p = interpolate(logits, size, mode="bilinear", align_corners=False)[0].mul(3).softmax(0)
    scores = torch.stack([p[[c == k for c in CLASSES]].amax(0) for k in range(4)])
    first = 0 if kept is None else 1
    if area is not None:
        votes = torch.bincount(scores.argmax(0).flatten(), minlength=4)[first:]
        scores[first:] *= (votes > area * votes.sum())[:, None, None]
    expected = torch.where(scores.amax(0) >= 0.4, scores.argmax(0), -1)
    assert (torch.from_numpy(found) == expected).float().mean() > 0.995
    assert len(expected.unique()) > 1 or area == 1.0


def test_a_classs_map_is_its_prompts_highest() -> None:
    maps = torch.rand(7, 2, 3)
    expected = torch.stack([maps[:2].amax(0), maps[2], maps[3:6].amax(0), maps[6]])
    assert torch.equal(class_maps(maps, CLASSES), expected)
    assert torch.equal(class_maps(maps[:3], (0, 1, 2)), maps[:3])
