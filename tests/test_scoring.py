import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import ttd
from tests.tolerance import assert_close
from ttd.encoders.calibration import Calibration
from ttd.errors import InputError
from ttd.scoring import (
    SCORES,
    mean_feature,
    min_max_scores,
    s_image,
    s_image_text,
    s_pixel,
    s_seg,
    s_text,
    select_largest_gap,
    select_threshold,
    softmax_scores,
)
from ttd.selection import Selection, default_rule, select_tags

SIM = torch.rand(2, 5, 3, 4) * 2 - 1
# Few distinct values, so that equal scores and equal drops come up often.
SCORE_LISTS = st.lists(st.sampled_from([-0.5, -0.25, 0.0, 0.125, 0.25, 0.5, 1.0]), min_size=1, max_size=8)


def gap_by_hand(scores: list[float]) -> list[bool]:
    """The largest drop between sorted neighbours, spelled out."""
    ordered = sorted(scores, reverse=True)
    best, cut = 0.0, len(ordered)
    for i in range(len(ordered) - 1):
        if ordered[i] - ordered[i + 1] > best:
            best, cut = ordered[i] - ordered[i + 1], i + 1
    return [score in ordered[:cut] for score in scores]


def padded(lists: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded with NaN, and which entries are real."""
    longest = max(map(len, lists))
    scores = torch.tensor([row + [float("nan")] * (longest - len(row)) for row in lists])
    return scores, ~scores.isnan()


@given(st.lists(SCORE_LISTS, min_size=1, max_size=4))
def test_largest_gap_of_padded_batches(lists: list[list[float]]) -> None:
    scores, valid = padded(lists)
    found = select_largest_gap(scores, valid)
    for row, scores_of_row in zip(found.tolist(), lists, strict=True):
        assert row[: len(scores_of_row)] == gap_by_hand(scores_of_row)
        assert not any(row[len(scores_of_row) :])


@given(arrays(np.float32, st.integers(1, 12), elements=st.floats(-1, 1, width=32)))
def test_largest_gap_of_any_cosines(scores: NDArray[np.float32]) -> None:
    wide = scores.astype(np.float64)  # exact differences decide in both
    assert select_largest_gap(torch.from_numpy(wide)).tolist() == gap_by_hand(wide.tolist())


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.2], [True]),
        ([0.3, 0.3, 0.3], [True, True, True]),
        ([0.75, 0.5, 0.25], [True, False, False]),
        ([0.1, 0.9, 0.85, 0.2], [False, True, True, False]),
        ([], []),
    ],
)
def test_rules_at_the_edges(scores: list[float], expected: list[bool]) -> None:
    assert select_largest_gap(torch.tensor(scores)).tolist() == expected


def test_a_caption_without_valid_words_selects_nothing() -> None:
    valid = torch.tensor([[False, False], [True, False]])
    assert select_largest_gap(torch.zeros(2, 2), valid).tolist() == [[False, False], [True, False]]
    assert select_threshold(torch.zeros(2, 2), 0.5, valid).tolist() == [[False, False], [True, False]]


@given(SCORE_LISTS, st.sampled_from([0.0, 0.2, 0.5]))
def test_threshold(scores: list[float], threshold: float) -> None:
    found = select_threshold(torch.tensor(scores), threshold).tolist()
    everything = len(set(scores)) == 1
    assert found == [everything or score >= threshold for score in scores]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("selection", ["gap", "softmax", "min-max", "calibrated", "threshold"])
def test_scores_that_are_not_finite_are_refused(bad: float, selection: str) -> None:
    with pytest.raises(InputError, match="NaN"):
        select_tags([0.1, bad], selection)


def test_select_tags_by_name_is_public_and_takes_lists_and_arrays() -> None:
    assert ttd.select_tags([0.31, 0.30, 0.11]).tolist() == [True, True, False]
    assert select_tags(np.array([0.31, 0.30, 0.11]), "softmax").tolist() == [True, False, False]
    assert select_tags([0.3, 0.25, 0.1], "min-max").tolist() == [True, True, False]
    assert select_tags([0.3, 0.2, 0.1], "threshold", threshold=0.2).tolist() == [True, True, False]
    steep = Calibration(100.0, 0.28)
    assert select_tags([0.3, 0.25, 0.1], "calibrated", calibration=steep).tolist() == [True, False, False]
    with pytest.raises(InputError, match="unknown selection"):
        select_tags([0.1], "best")


def test_calibrated_scores_are_cut_each_by_itself() -> None:
    """A single word, or equal ones, that the calibration puts below the threshold are not selected."""
    for scores in ([0.1], [0.1, 0.1], [0.1, 0.3]):
        assert select_tags(scores, "calibrated").tolist() == [score >= 0.25 for score in scores]
        alone = Selection("s_image", "calibrated").select(Calibration(10.0, 0.25)(torch.tensor(scores)))
        assert alone.tolist() == [score >= 0.25 for score in scores]
    with pytest.raises(InputError, match="s_seg"):
        Selection("s_seg", "calibrated")


def test_s_pixel_is_the_best_cell_inside() -> None:
    inside = torch.tensor([[True, True, False, False]]).expand(3, 4)
    assert np.array_equal(s_pixel(SIM).numpy(), SIM.numpy().max(axis=(2, 3)))
    assert np.array_equal(s_pixel(SIM, inside).numpy(), SIM.numpy()[..., :2].max(axis=(2, 3)))


def test_s_seg_counts_the_cells_a_word_wins() -> None:
    valid = torch.tensor([[True] * 5, [True, False, True, False, True]])
    found = s_seg(SIM, valid).numpy()
    for b in range(2):
        words = np.flatnonzero(valid[b].numpy())
        wins = words[SIM[b].numpy()[words].argmax(0)]
        assert_close(found[b], [np.mean(wins == n) for n in range(5)], 12)


def test_s_seg_leaves_padding_out() -> None:
    inside = torch.tensor([[True, True, False, False]]).expand(3, 4)
    assert_close(s_seg(SIM, inside=inside), s_seg(SIM[..., :2]), 12)


def test_scores_of_whole_images_and_captions_are_cosines() -> None:
    dense, text = torch.randn(2, 6, 3, 4), torch.randn(2, 5, 6)
    weight = torch.rand(2, 3, 4)
    mean = (dense.numpy() * weight.numpy()[:, None]).sum((2, 3)) / weight.numpy().sum((1, 2))[:, None]
    norms = np.linalg.norm(mean, axis=-1)[:, None] * np.linalg.norm(text.numpy(), axis=-1)
    expected = np.einsum("bc,bnc->bn", mean, text.numpy()) / norms
    found = s_image(mean_feature(dense, weight), text)
    # A mean of 12 cells, two norms and a product of six channels; a mean may be far smaller than what it is of.
    assert_close(found, expected, 12 + 3 * 6, scale=float(dense.abs().max() / np.linalg.norm(mean, axis=-1).min()))
    assert_close(mean_feature(dense), dense.double().mean((2, 3)), 12, scale=float(dense.abs().max()))
    assert_close(s_text(mean_feature(dense, weight), text), found, 3 * 6)
    assert torch.equal(s_image_text(found, found), 2 * found)


@settings(max_examples=30)
@given(st.lists(SCORE_LISTS, min_size=1, max_size=4))
def test_scaling_of_padded_batches(lists: list[list[float]]) -> None:
    scores, valid = padded(lists)
    shares, scaled = softmax_scores(scores, 10.0, valid).numpy(), min_max_scores(scores, valid).numpy()
    for i, row in enumerate(lists):
        powers = np.exp(10 * (np.array(row) - max(row)))
        # A relative error of the power, of the exponent's size: up to 15, which only small powers have.
        assert_close(shares[i, : len(row)], powers / powers.sum(), len(row) + 2)
        spread = max(row) - min(row)
        expected = (np.array(row) - min(row)) / spread if spread else np.ones(len(row))
        assert_close(scaled[i, : len(row)], expected, 3)
        assert not shares[i, len(row) :].any()
        assert not scaled[i, len(row) :].any()


def test_half_precision_scores_are_compared_in_float32() -> None:
    assert softmax_scores(torch.tensor([0.3, 0.2], dtype=torch.bfloat16), 100.0).dtype == torch.float32


def test_every_score_has_a_selection() -> None:
    assert [default_rule(score) for score in SCORES] == ["gap", *["softmax"] * 3, "threshold"]
    with pytest.raises(InputError, match="unknown score"):
        default_rule("s_best")
