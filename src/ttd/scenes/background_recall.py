"""How much of the background `segment` finds when more and more classes are asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ttd.evaluation.metrics import confusion_matrix
from ttd.inference.masks import pixel_labels
from ttd.inference.options import Options
from ttd.maps import norm
from ttd.model import TTD
from ttd.scenes.nouns import NOUNS
from ttd.scenes.scene import Scene

ASKED = (3, 20, 80, len(NOUNS))
RULES = ("calibrated", "joint min-max")


@dataclass(frozen=True)
class BackgroundRow:
    """Means over scenes, all in 0..1.

    Attributes:
        rule: "calibrated" (`TTD.segment`), or "joint min-max": cosines scaled over all classes and cells of the
            question together, as earlier versions did.
        asked: how many nouns; those of the scene are among them.
        background: recall, the share of the background's pixels that are found.
        objects: recall, the share of the objects' pixels that get the right noun.
        share: of all pixels that are called background.
        truth: the true share.
    """

    rule: str
    asked: int
    background: float
    objects: float
    share: float
    truth: float


def background_rows(
    model: TTD, scenes: Sequence[Scene], counts: Sequence[int] = ASKED, threshold: float | None = None
) -> list[BackgroundRow]:
    """One row for each rule and number of nouns; the threshold is the model's own unless given."""
    cut = model.encoder.background if threshold is None else threshold
    found: dict[tuple[str, int], list[list[float]]] = {}
    for number, scene in enumerate(scenes):
        image = model.encode(scene.image, Options(background=cut))
        own = list(dict.fromkeys(scene.nouns))
        others = random.Random(number).sample([noun for noun in NOUNS if noun not in own], len(NOUNS) - len(own))
        for count in counts:
            names = (own + others)[: max(count, len(own))]
            truth = _truth(scene, names)
            sim = model.similarity(image, names)
            joint = pixel_labels(norm(sim, dim=(-3, -2, -1)), truth.shape, cut)
            for rule, labels in zip(RULES, (model.segment(image, names).label_map, joint), strict=True):
                found.setdefault((rule, count), []).append(_measure(labels, truth))
    return [BackgroundRow(rule, count, *np.mean(rows, 0).tolist()) for (rule, count), rows in sorted(found.items())]


def _truth(scene: Scene, names: Sequence[str]) -> np.ndarray:
    """As `segment` numbers labels: 0 is the background, n + 1 the n-th name."""
    place = {name: number + 1 for number, name in enumerate(names)}
    numbers: np.ndarray = np.array([place.get(label, 0) for label in scene.labels])
    return np.asarray(numbers[scene.label_map])


def _measure(labels: np.ndarray, truth: np.ndarray) -> list[float]:
    """See `BackgroundRow`: background, objects, share, truth."""
    counts = confusion_matrix(labels, truth, int(max(labels.max(), truth.max())) + 1)[:, :-1]
    of_truth, of_labels = counts.sum(1), counts.sum(0)
    return [
        float(counts[0, 0] / of_truth[0]),
        float(np.trace(counts[1:, 1:]) / of_truth[1:].sum()),
        float(of_labels[0] / counts.sum()),
        float(of_truth[0] / counts.sum()),
    ]
