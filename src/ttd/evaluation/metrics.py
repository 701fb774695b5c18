"""The field's measures, exact: confusion matrices in int64, overlaps of masks, scores of tags.

Shapes: K classes, N words. Masks and label maps are NumPy arrays at the ground truth's own size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttd.errors import InputError

IGNORED = 255


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, classes: int, ignored: int = IGNORED) -> np.ndarray:
    """How many pixels of each true class (row) were predicted as each class (column), int64 [K, K+1].

    The last column counts pixels that predict nothing (any predicted value of K or more). Pixels whose truth is
    `ignored` do not count. Raises `InputError` where shapes differ or a true label is out of range.
    """
    if predicted.shape != truth.shape:
        raise InputError(f"Prediction {predicted.shape} and truth {truth.shape} must have the same size.")
    keep = truth != ignored
    rows = truth[keep].astype(np.int64)
    columns = np.minimum(predicted[keep].astype(np.int64), classes)
    if rows.size and (rows.max() >= classes or min(rows.min(), columns.min()) < 0):
        raise InputError(f"Labels must be in 0..{classes - 1} or be the ignored {ignored}.")
    counts = np.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


@dataclass(frozen=True)
class ClassScores:
    """Per class over its union (float64 [K], NaN for a class that is neither there nor predicted).

    `iou` + `fpr` + `fnr` = 1: intersection, false positives and false negatives over the union.
    """

    iou: np.ndarray
    fpr: np.ndarray
    fnr: np.ndarray

    @property
    def mean(self) -> dict[str, float]:
        """mIoU, mFPR and mFNR over the classes that occur; NaN where none does."""
        pairs = (("mIoU", self.iou), ("mFPR", self.fpr), ("mFNR", self.fnr))
        return {name: mean_of_known(values) for name, values in pairs}


def class_scores(confusion: np.ndarray) -> ClassScores:
    """IoU, FPR and FNR of every class from a confusion matrix [K, K+1] or [K, K]."""
    classes = len(confusion)
    hit = np.diagonal(confusion).astype(np.float64)
    missed = confusion.sum(axis=1) - hit
    wrong = confusion[:, :classes].sum(axis=0) - hit
    union = hit + missed + wrong
    with np.errstate(invalid="ignore"):
        return ClassScores(hit / union, wrong / union, missed / union)


@dataclass(frozen=True)
class Overlap:
    """A mask against the true one: IoU, false positives and false negatives over the union; the three sum to 1."""

    iou: float
    fpr: float
    fnr: float


@dataclass(frozen=True)
class MaskCounts:
    """Pixels of a mask against the true one: in both, predicted only, true only."""

    hit: int
    wrong: int
    missed: int

    @property
    def overlap(self) -> Overlap:
        """The shares of the union; two empty masks agree (IoU 1)."""
        union = self.hit + self.wrong + self.missed
        if not union:
            return Overlap(1.0, 0.0, 0.0)
        return Overlap(self.hit / union, self.wrong / union, self.missed / union)


def mask_counts(predicted: np.ndarray, truth: np.ndarray) -> MaskCounts:
    """Counts the pixels of two bool masks of the same shape."""
    if predicted.shape != truth.shape:
        raise InputError(f"Prediction {predicted.shape} and truth {truth.shape} must have the same size.")
    hit = int((predicted & truth).sum())
    return MaskCounts(hit, int(predicted.sum()) - hit, int(truth.sum()) - hit)


def overlap(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """Overlap of two bool masks of the same shape; two empty masks agree (IoU 1)."""
    return mask_counts(predicted, truth).overlap


@dataclass
class TagCounts:
    """Right and wrong decisions over all words of all captions, summed as they come."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def add(self, selected: np.ndarray, true: np.ndarray) -> None:
        """Counts the words of one caption; both bool [N]."""
        self.true_positive += int((selected & true).sum())
        self.false_positive += int((selected & ~true).sum())
        self.false_negative += int((~selected & true).sum())
        self.true_negative += int((~selected & ~true).sum())

    @property
    def scores(self) -> dict[str, float]:
        """Precision, recall, F1 and accuracy in 0..1; NaN where a ratio has no denominator."""
        tp, fp, fn, tn = self.true_positive, self.false_positive, self.false_negative, self.true_negative
        return {
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "F1": _ratio(2 * tp, 2 * tp + fp + fn),
            "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        }


def average_precision(scores: np.ndarray, true: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn computes it; NaN where nothing is true.

    Words with equal scores share one threshold. `scores` float [N], `true` bool [N].
    """
    return float(weighted_average_precisions(scores, true, np.ones((1, len(scores))))[0])


def weighted_average_precisions(scores: np.ndarray, true: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`average_precision` where word i counts as often as `counts` [B,N] says: float64 [B]."""
    if np.isnan(scores).any():
        raise InputError("A score is NaN: average precision has no order for it.")
    order = np.argsort(-scores, kind="stable")
    ranked, weights = scores[order], counts[:, order]
    last = np.append(ranked[1:] != ranked[:-1], np.ones(min(len(ranked), 1), bool))  # of every group of equals
    seen = np.cumsum(weights, axis=1)[:, last]
    hits = np.cumsum(weights * true[order], axis=1)[:, last]
    positives = hits[:, -1:] if hits.shape[1] else np.zeros((len(counts), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.diff(hits / positives, axis=1, prepend=0.0)
        # Before the first word that counts there is no precision, and no step.
        return np.where(positives[:, 0] > 0, np.sum(steps * np.where(seen > 0, hits / seen, 0.0), axis=1), np.nan)


def class_average_precisions(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Average precision of every class over S images: float64 [K], NaN for a class without a positive.

    Their mean over the other classes (`mean_of_known`) is the class-wise mAP of multi-label classification.

    Args:
        scores: float [S, K], higher is likelier; images with equal scores share one threshold.
        true: bool [S, K].

    Raises:
        InputError: the shapes differ, or a score is NaN.
    """
    if scores.shape != true.shape:
        raise InputError(f"Scores {scores.shape} and truth {true.shape} must have the same size.")
    pairs = zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(true.T), strict=True)
    return np.array([average_precision(column, right) for column, right in pairs], np.float64)


def mean_of_known(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is left."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a positive's score exceeds a negative's, ties counting half; NaN where either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).mean() / (2 * len(negative)))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
