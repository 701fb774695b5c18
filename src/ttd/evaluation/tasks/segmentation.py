"""Open-vocabulary segmentation: every pixel gets a class by its name (Table 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttd.evaluation.benchmark import Benchmark, Record, Result, Sample, Tally
from ttd.evaluation.bootstrap import Counts, Statistic, ratio
from ttd.evaluation.datasets.classes import ClassList
from ttd.evaluation.datasets.labels import (
    EITHER_WAY,
    LabelRule,
    apply_rule,
    oriented,
    read_labels,
    read_voc_labels,
)
from ttd.evaluation.metrics import IGNORED, class_scores, confusion_matrix
from ttd.evaluation.report.panels import ItemPanels, class_panel, photo_panel
from ttd.files.schema import count, each, entries, fields, integer, text, within
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.inference.protocols import unrefined_first

if TYPE_CHECKING:
    from PIL import Image

    from ttd.model import TTD


class ClassSegmentation(Benchmark):
    """Label maps against a model's labels, at the size of the label maps.

    Args:
        name: of the benchmark.
        root: of the data.
        samples: images, each with its label file.
        classes: what the labels mean.
        rule: makes the table from stored values to classes, see `ttd.evaluation.datasets.labels`.
        options: for `TTD.segment`.
        synonyms: ask for all names of a class; the best of them counts.
        orientation: of `ttd.evaluation.datasets.labels.ORIENTATIONS`.
        voc_colours: see `ttd.evaluation.datasets.layouts.Layout`.
        known: ask each image only for the classes that are in it: how well they are localised, not recognised.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        samples: Sequence[Sample],
        classes: ClassList,
        rule: LabelRule,
        options: Options,
        synonyms: bool = False,
        orientation: str = "upright",
        voc_colours: bool = False,
        known: bool = False,
    ) -> None:
        self.name, self.root, self.options = name, root, {"masks": options}
        self.classes, self.rule, self.synonyms = classes, rule, synonyms
        self.orientation, self.voc_colours, self.known = orientation, voc_colours, known
        self._samples = list(samples)
        self._table = rule(len(classes))

    @property
    def samples(self) -> Sequence[Sample]:
        """One for each label file."""
        return self._samples

    def settings(self) -> dict[str, Any]:
        """Classes, their texts, the labels' rule."""
        return {
            "classes": self.classes.titles,
            "texts": [list(texts) for texts, _ in self.classes.asked(self.synonyms, self._words)],
            "labels": self.rule.__name__,
            "synonyms": self.synonyms,
            "label_orientation": self.orientation,
            "known_classes": self.known,
        }

    def measure(self, model: TTD, number: int) -> Record:
        """The image's confusion matrix, as [true class, predicted class, pixels] where there are pixels; and in
        `labels` what had to be decided about the label map.
        """
        image, truth, decided = self._read(number)
        predicted = self._labels(model, image, truth, self.options["masks"])
        counts = confusion_matrix(predicted, truth, len(self.classes))
        found = [[int(i), int(j), int(counts[i, j])] for i, j in zip(*counts.nonzero(), strict=True)]
        return {"confusion": found, **({"labels": decided} if decided else {})}

    def check(self, record: Record) -> None:
        """See `Benchmark`."""
        true = within(0, len(self.classes) - 1, integer)
        predicted = within(0, len(self.classes), integer)  # the last: no class
        fields({"confusion": each(entries(true, predicted, count))}, {"labels": each(text)})(record)

    def quality(self, record: Record) -> dict[str, float]:
        """The mean IoU over the classes that are in this image or were predicted there."""
        tally = self.tally()
        tally.add(record)
        return {"IoU": class_scores(tally.counts).mean["mIoU"]}

    def resampler(self, records: Iterable[Record]) -> Statistic:
        """mIoU of one confusion matrix over the drawn images."""
        pixels = []
        for record in records:
            counts = np.zeros((3, len(self.classes) + 1))  # right, true, predicted
            for true, predicted, number in record["confusion"]:
                counts[0, true] += number * (true == predicted)
                counts[1, true] += number
                counts[2, predicted] += number
            pixels.append(counts[:, :-1])
        table = np.array(pixels).reshape(len(pixels), -1)

        def measure(counts: Counts) -> dict[str, NDArray[np.float64]]:
            right, true, predicted = np.moveaxis((counts @ table).reshape(len(counts), 3, -1), 1, 0)
            ious = ratio(right, true + predicted - right)
            known = np.isfinite(ious)
            return {"mIoU": ratio(np.where(known, ious, 0.0).sum(1), known.sum(1).astype(float))}

        return measure

    def show(self, model: TTD, number: int, record: Record) -> ItemPanels:
        """The image, the true classes, those found, and the refined ones where the options ask for it."""
        image, truth, _ = self._read(number)
        kinds = unrefined_first(self.options["masks"], model.encoder)
        maps = {"truth": truth, **{name: self._labels(model, image, truth, options) for name, options in kinds.items()}}
        panels = [
            class_panel(name, image, labels, self.classes.titles, background=self.classes.background)
            for name, labels in maps.items()
        ]
        return ItemPanels((photo_panel("image", image), panels[0]), tuple(panels[1:]))

    @property
    def _words(self) -> bool:
        """Whether words for the background are asked for as a class, not by the options."""
        return not self.options["masks"].background_words

    def _labels(self, model: TTD, image: Image.Image, truth: np.ndarray, options: Options) -> np.ndarray:
        if not self.known:
            asked = [texts for texts, _ in self.classes.asked(self.synonyms, self._words)]
            return self.classes.labels(model.segment(image, asked, options), self.synonyms, self._words)
        there = np.unique(truth[truth != IGNORED])
        if self.classes.background:
            there = np.union1d(there, 0)
        own = ClassList(tuple(self.classes.names[k] for k in there), self.classes.background)
        if not (asked := [texts for texts, _ in own.asked(self.synonyms, self._words)]):
            return np.zeros_like(truth)
        labels = own.labels(model.segment(image, asked, options), self.synonyms, self._words)
        return np.asarray(np.append(there, len(self.classes))[labels])

    def _read(self, number: int) -> tuple[Image.Image, np.ndarray, list[str]]:
        """The image, its true classes [H,W], and what had to be decided about these."""
        sample = self._samples[number]
        image = read_image(sample.image)
        path = sample.truth[0]
        values, by = read_voc_labels(path, _VOC_VALUES) if self.voc_colours else (read_labels(path), None)
        values, turned = oriented(values, path, sample.image, (image.height, image.width), self.orientation)
        return image, apply_rule(values, self._table, path), [how for how in (by, turned) if how]

    def tally(self) -> _ConfusionTally:
        """One matrix for the whole set."""
        return _ConfusionTally(self.classes)


class _ConfusionTally(Tally):
    def __init__(self, classes: ClassList) -> None:
        self.titles = classes.titles
        self.counts = np.zeros((len(classes), len(classes) + 1), np.int64)
        self.decided: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, record: Record) -> None:
        for true, predicted, pixels in record["confusion"]:
            self.counts[true, predicted] += pixels
        for how in record.get("labels", ()):
            self.decided[how].append(str(record.get("id", "")))

    def result(self) -> Result:
        scores = class_scores(self.counts)
        rows = [
            {
                "class": title,
                "IoU": float(scores.iou[k]),
                "FPR": float(scores.fpr[k]),
                "FNR": float(scores.fnr[k]),
                "true pixels": int(self.counts[k].sum()),
                "predicted pixels": int(self.counts[:, k].sum()),
            }
            for k, title in enumerate(self.titles)
        ]
        total = int(self.counts.sum())
        right = int(np.diagonal(self.counts).sum())
        numbers = {**scores.mean, "pixel accuracy": right / total if total else float("nan")}
        absent = sum(bool(np.isnan(iou)) for iou in scores.iou)
        where = f"{absent} of the {len(self.titles)} classes"
        notes = [f"Neither there nor predicted, so not in the means: {where}."] if absent else []
        notes += [_sentence(how, sorted(names)) for how, names in sorted(self.decided.items())]
        return Result(numbers, {"per_class": rows}, tuple(notes))


_VOC_VALUES = 21


def _sentence(how: str, names: list[str]) -> str:
    choice = "; --label-orientation says how they were drawn" if how == EITHER_WAY else ""
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} label maps {'' if how == EITHER_WAY else 'were '}{how}: {', '.join(names[:5])}{more}{choice}."
