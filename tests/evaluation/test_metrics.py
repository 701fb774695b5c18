"""Measures against torchmetrics, scikit-learn and brute force, on random and degenerate input."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import MulticlassJaccardIndex

from tests.tolerance import assert_close
from ttd.errors import InputError
from ttd.evaluation.metrics import (
    TagCounts,
    auc,
    average_precision,
    class_average_precisions,
    class_scores,
    confusion_matrix,
    mean_of_known,
    overlap,
    weighted_average_precisions,
)


def test_iou_agrees_with_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (3, 20, 30))
    truth[0, :5] = 255
    predicted = rng.integers(0, 5, truth.shape)
    reference = MulticlassJaccardIndex(num_classes=5, average=None, ignore_index=255)
    expected = reference(torch.from_numpy(predicted), torch.from_numpy(truth))
    scores = class_scores(confusion_matrix(predicted, truth, 5))
    assert_close(scores.iou, expected, 1)  # counts, divided in float32 there
    assert_close(scores.iou + scores.fpr + scores.fnr, np.ones(5), 3, dtype=torch.float64)


def test_confusion_adds_up_over_images_and_counts_unpredicted_pixels_as_missed() -> None:
    truth = np.array([[0, 1], [1, 255]], np.uint8)
    predicted = np.array([[0, 9], [0, 1]], np.uint8)
    matrix = confusion_matrix(predicted, truth, 2)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1]]
    scores = class_scores(matrix + matrix)
    assert scores.iou.tolist() == [0.5, 0.0]
    assert scores.fnr[1] == 1.0
    assert scores.mean["mIoU"] == 0.25


def test_absent_class_is_left_out_and_all_ignored_is_nan() -> None:
    truth = np.zeros((4, 4), np.uint8)
    scores = class_scores(confusion_matrix(truth, truth, 3))
    assert np.isnan(scores.iou[1:]).all()
    assert scores.mean["mIoU"] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = class_scores(confusion_matrix(truth, np.full_like(truth, 255), 3)).mean
    assert np.isnan(nothing["mIoU"])


def test_bad_labels_and_sizes_are_refused() -> None:
    zeros = np.zeros((2, 2), int)
    with pytest.raises(InputError, match="0\\.\\.1"):
        confusion_matrix(zeros, zeros + 7, 2)
    with pytest.raises(InputError, match="same size"):
        confusion_matrix(zeros, np.zeros((2, 3), int), 2)
    with pytest.raises(InputError, match="same size"):
        overlap(zeros > 0, np.zeros((2, 3), bool))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_overlap_by_brute_force(pixels: list[tuple[bool, bool]]) -> None:
    predicted, truth = (np.array(values) for values in zip(*pixels, strict=True))
    union = sum(p or t for p, t in pixels)
    result = overlap(predicted, truth)
    expected = sum(p and t for p, t in pixels) / union if union else 1.0
    assert result.iou == pytest.approx(expected)
    assert result.iou + result.fpr + result.fnr == pytest.approx(1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.7]), st.booleans()), min_size=1, max_size=30))
def test_ranking_measures_agree_with_scikit_learn(words: list[tuple[float, bool]]) -> None:
    scores, true = (np.array(values) for values in zip(*words, strict=True))
    if true.any():
        assert average_precision(scores, true) == pytest.approx(average_precision_score(true, scores))
        counts = np.random.default_rng(len(scores)).integers(0, 4, (3, len(scores)))
        for drawn, found in zip(counts, weighted_average_precisions(scores, true, counts), strict=True):
            if drawn[true].any():
                reference = average_precision_score(true, scores, sample_weight=drawn)
                assert found == pytest.approx(reference)
            else:
                assert np.isnan(found)
    else:
        assert np.isnan(average_precision(scores, true))
    if true.any() and not true.all():
        assert auc(scores[true], scores[~true]) == pytest.approx(roc_auc_score(true, scores))
    else:
        assert np.isnan(auc(scores[true], scores[~true]))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_class_wise_map_agrees_with_scikit_learn(images: int, classes: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (images, classes)) / 4 if ties else rng.random((images, classes))
    true = rng.random((images, classes)) < 0.3
    found = class_average_precisions(scores, true)
    known = true.any(0)
    assert np.isnan(found[~known]).all()
    if known.any():
        expected = average_precision_score(true[:, known], scores[:, known], average="macro")
        assert mean_of_known(found) == pytest.approx(expected)
    else:
        assert np.isnan(mean_of_known(found))


def test_class_wise_map_wants_one_score_per_truth() -> None:
    with pytest.raises(InputError, match="same size"):
        class_average_precisions(np.zeros((2, 3)), np.zeros((3, 2), bool))


def test_nan_scores_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        average_precision(np.array([0.1, np.nan]), np.array([True, False]))


def test_tag_counts() -> None:
    counts = TagCounts()
    counts.add(np.array([True, True, False, False]), np.array([True, False, True, False]))
    counts.add(np.array([True]), np.array([True]))
    scores = counts.scores
    assert scores == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "F1": 2 / 3, "accuracy": 3 / 5})
    assert np.isnan(TagCounts().scores["F1"])
