"""Tag selection added up: one row per score or tagger (Tables 2 and 9) with the controls beside it, and at every
threshold (Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttd.evaluation.datasets.tagmask import TagMaskRow
from ttd.evaluation.metrics import TagCounts, auc, average_precision, mean_of_known
from ttd.files import whole_file
from ttd.scoring import select_threshold
from ttd.taggers import Caption, Chosen, TextTagger

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

    "absent selected" is the share of the nouns that a caption names though they are not in the image that were
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
        """One caption; `absent` bool [N] marks the nouns that are not in the image, `filler` what names nothing."""
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


class PresentAboveAbsent:
    """How often s_pixel of a word in the image exceeds that of one that is not, as images come."""

    def __init__(self) -> None:
        self._scores: list[np.ndarray] = []
        self._present: list[np.ndarray] = []

    def add(self, scores: np.ndarray, present: np.ndarray) -> None:
        """One image: scores [V] of the vocabulary, and which of its words the image shows, bool [V]."""
        self._scores.append(scores.astype(np.float32))
        self._present.append(present)

    def __bool__(self) -> bool:
        return bool(self._scores)

    @property
    def numbers(self) -> dict[str, float]:
        """ "AUC per image": over the words within an image; "AUC per word": over the images for one word."""
        scores, present = np.stack(self._scores), np.stack(self._present)
        pairs = {"AUC per image": (scores, present), "AUC per word": (scores.T, present.T)}
        return {
            name: mean_of_known(np.array([auc(row[there], row[~there]) for row, there in zip(*pair, strict=True)]))
            for name, pair in pairs.items()
        }


class TextTags:
    """Asks the taggers about many captions at once and keeps the answers until they are fetched.

    Args:
        taggers: each with a name of its own.
        rows: of the set.
    """

    def __init__(self, taggers: Sequence[TextTagger], rows: Sequence[TagMaskRow]) -> None:
        self.taggers, self._rows = tuple(taggers), rows
        self._ready: dict[int, dict[str, dict[str, Any] | None]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the taggers."""
        return tuple(tagger.name for tagger in self.taggers)

    def prepare(self, numbers: Sequence[int]) -> None:
        """Asks about these rows."""
        captions = [Caption(self._rows[number].caption, self._rows[number].words) for number in numbers]
        found = {tagger.name: tagger.choose(captions) for tagger in self.taggers}
        self._ready = {
            number: {name: _record(chosen[place]) for name, chosen in found.items()}
            for place, number in enumerate(numbers)
        }

    def fetch(self, number: int) -> dict[str, dict[str, Any] | None]:
        """By tagger: "selected" of every word, "others" that the caption does not have; None without an answer."""
        if number not in self._ready:
            self.prepare([number])
        return self._ready.pop(number)


def decided(tags: Mapping[str, Any], found: Mapping[str, Any] | None) -> Decided:
    """A tagger's record beside the caption's words and truth; what the caption does not have counts as wrong words."""
    selected = list(found["selected"]) if found else [False] * len(tags["words"])
    others = list(found["others"]) if found else []
    return Decided(
        [*tags["words"], *others],
        np.array([*tags["true"], *[False] * len(others)], bool),
        None,
        np.array([*selected, *[True] * len(others)], bool),
    )


def _record(chosen: Chosen | None) -> dict[str, Any] | None:
    return None if chosen is None else {"selected": list(chosen.selected), "others": list(chosen.others)}


THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
MEASURES = ("precision", "recall", "F1", "accuracy")


class Sweep:
    """Counts of each score at each threshold."""

    def __init__(self, scores: Sequence[str]) -> None:
        self.counts = {score: {threshold: TagCounts() for threshold in THRESHOLDS} for score in scores}

    def add(
        self,
        words: Sequence[str],
        true: Sequence[bool],
        asked: Sequence[str],
        decisions: Mapping[str, Sequence[Sequence[float]]],
    ) -> None:
        """One caption: all words with truth, the scored distinct ones, and their [score, selected] per score."""
        right = np.array(true, bool)
        for score, at in self.counts.items():
            values = torch.tensor([value for value, _ in decisions[score]], dtype=torch.float64)
            for threshold, counts in at.items():
                chosen = {
                    w for w, keep in zip(asked, select_threshold(values, threshold).tolist(), strict=True) if keep
                }
                counts.add(np.array([word in chosen for word in words], bool), right)

    def rows(self) -> list[dict[str, Any]]:
        """One row per score and threshold."""
        return [
            {"score": score, "threshold": threshold, **counts.scores}
            for score, at in self.counts.items()
            for threshold, counts in at.items()
        ]


def plot_sweep(rows: Sequence[Mapping[str, Any]], gap: Mapping[str, float] | None, path: Path) -> None:
    """Draws precision, recall, F1 and accuracy over the threshold; `gap`: s_pixel with its largest gap, level."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for score in dict.fromkeys(row["score"] for row in rows):
            mine = [row for row in rows if row["score"] == score]
            axes.plot([row["threshold"] for row in mine], [row[measure] for row in mine], label=score)
        if gap is not None:
            axes.axhline(gap[measure], color="black", linestyle="--", label="s_pixel (largest gap)")
        axes.set(title=measure, xlabel="threshold", ylim=(-0.02, 1.02), xlim=(0, 1))
    figure.axes[0].legend(fontsize="x-small")
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)
