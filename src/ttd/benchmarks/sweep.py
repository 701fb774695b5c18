"""Tag selection at every threshold (the paper's Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttd.atomic import whole_file
from ttd.benchmarks.metrics import TagCounts
from ttd.tagging import select_threshold

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
                kept = {w for w, keep in zip(asked, select_threshold(values, threshold).tolist(), strict=True) if keep}
                counts.add(np.array([word in kept for word in words], bool), right)

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
