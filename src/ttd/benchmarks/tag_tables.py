"""Tag selection added up: one row per score or tagger (Tables 2 and 9), with the controls beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ttd.benchmarks.metrics import TagCounts, auc, average_precision

NEVER = -2.0  # below every cosine and share: the score of a word that is never selected


@dataclass(frozen=True)
class Decided:
    """What a tagger made of one caption: its words in order, with truth, score (None: it gives none), decision."""

    words: Sequence[str]
    true: np.ndarray
    scores: np.ndarray | None
    selected: np.ndarray


def decide(words: Sequence[str], true: Sequence[bool], decisions: dict[str, tuple[float, bool]]) -> Decided:
    """Lays decisions on distinct words onto every occurrence; a word without one is never selected."""
    found = [decisions.get(word, (NEVER, False)) for word in words]
    return Decided(
        words,
        np.array(true, bool),
        np.array([score for score, _ in found], np.float64),
        np.array([selected for _, selected in found], bool),
    )


@dataclass
class TagRow:
    """One tagger over all captions.

    "absent selected" is the share of the nouns that a caption names though they are not in the picture that were
    selected: a tagger that looks at the text alone selects them all. "filler selected" is the share of the words that
    name nothing (candidates that are neither nouns nor true) that were selected; NaN where they are not known.
    """

    counts: TagCounts = field(default_factory=TagCounts)
    precisions: list[float] = field(default_factory=list)
    absent: int = 0
    absent_selected: int = 0
    filler: int = 0
    filler_selected: int = 0

    def add(self, decided: Decided, absent: np.ndarray | None = None, filler: np.ndarray | None = None) -> None:
        """One caption; `absent` bool [N] marks the nouns that are not in the picture, `filler` what names nothing."""
        self.counts.add(decided.selected, decided.true)
        if decided.scores is not None and decided.true.any():
            self.precisions.append(average_precision(decided.scores, decided.true))
        if absent is not None:
            self.absent += int(absent.sum())
            self.absent_selected += int((absent & decided.selected).sum())
        if filler is not None:
            self.filler += int(filler.sum())
            self.filler_selected += int((filler & decided.selected).sum())

    @property
    def numbers(self) -> dict[str, float]:
        """Precision, recall, F1, accuracy, mAP (mean over captions with a true word), absent and filler selected."""
        absent = self.absent_selected / self.absent if self.absent else float("nan")
        filler = self.filler_selected / self.filler if self.filler else float("nan")
        mean = float(np.mean(self.precisions)) if self.precisions else float("nan")
        return {**self.counts.scores, "mAP": mean, "absent selected": absent, "filler selected": filler}


def present_above_absent(scores: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """How often s_pixel of a word in the picture exceeds that of one that is not.

    Args:
        scores: float [S, V], of V words of the vocabulary on S pictures.
        present: bool [S, V].

    Returns:
        "AUC per picture": over the words within a picture; "AUC per word": over the pictures for one word.
    """
    rows = [auc(row[there], row[~there]) for row, there in zip(scores, present, strict=True)]
    columns = [auc(row[there], row[~there]) for row, there in zip(scores.T, present.T, strict=True)]
    return {"AUC per picture": _mean(rows), "AUC per word": _mean(columns)}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
