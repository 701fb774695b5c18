"""Multi-label classification: which of many classes an image shows, as class-wise mAP (Table 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn.functional import normalize

from ttd.evaluation.benchmark import Benchmark, Record, Result, Sample, Tally
from ttd.evaluation.bootstrap import Counts, Statistic, ratio
from ttd.evaluation.datasets.classes import ClassList
from ttd.evaluation.datasets.multilabel import LabelledImages
from ttd.evaluation.metrics import (
    average_precision,
    class_average_precisions,
    mean_of_known,
    weighted_average_precisions,
)
from ttd.evaluation.report.panels import ItemPanels, marked, photo_panel
from ttd.files.schema import each, fields, integer, number, within
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.selection import Selection

if TYPE_CHECKING:
    from ttd.inference.views import EncodedImage
    from ttd.model import TTD

SHARPNESS = 2.0  # of the weights' softmax, in CLIP Surgery's code


def without_empty(cosines: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Scores without a label set: float [S,K] cosines less the cosine with the empty sentence, float [S].

    It subtracts one number per image: the order of an image's classes stays, that of a class's images changes.
    """
    return np.asarray(cosines - empty[:, None])


def without_common(cosines: np.ndarray) -> np.ndarray:
    """Scores with the label set, float [S,K] from cosines [S,K]: what all classes share is taken away.

    The weights hold back what an obvious class adds to the others.
    """
    weighted = cosines * softmax(SHARPNESS * cosines, axis=1) * cosines.shape[1]
    return np.asarray(weighted - weighted.mean(axis=1, keepdims=True))


S_PIXEL, S_IMAGE, CLIP = "s_pixel", "s_image", "CLIP"
SURGERY, SURGERY_LABELS = "CLIP Surgery", "CLIP Surgery, label set"
CONSTANT = "constant"
_DIGITS = 7  # of cosines on disk: what float32 holds


class MultiLabel(Benchmark):
    """Scores of all classes on every image, by every way of scoring at once.

    Args:
        name: of the benchmark.
        data: the images and what they show.
        classes: K names in the order of `data.truth`.
        options: how images are looked at; `templates` go around the class names.
        synonyms: ask for all names of a class; the best of them counts.
    """

    def __init__(
        self, name: str, data: LabelledImages, classes: ClassList, options: Options, synonyms: bool = False
    ) -> None:
        self.name, self.root, self.options = name, data.root, {"labels": options}
        self.data, self.classes, self.synonyms = data, classes, synonyms
        self._texts = classes.texts(synonyms)
        self._class_of = torch.tensor(
            [number for number, names in enumerate(classes.names) for _ in (names if synonyms else names[:1])]
        )
        self._known: tuple[TTD, Tensor, list[int]] | None = None

    @property
    def samples(self) -> Sequence[Sample]:
        """One for each image of the data set's list."""
        return self.data.samples

    def settings(self) -> dict[str, Any]:
        """Classes, their texts, the annotations read."""
        return {
            "classes": self.classes.titles,
            "texts": self._texts,
            "synonyms": self.synonyms,
            "annotations": self.data.source,
        }

    def fingerprint(self) -> str:
        """sha256 over the images (see `Benchmark.fingerprint`) and what they show."""
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(np.packbits(self.data.truth).tobytes())
        return digest.hexdigest()

    def measure(self, model: TTD, number: int) -> Record:
        """The classes that are there, and for each way of scoring one cosine per class.

        Classes with words outside a closed vocabulary are listed under "unknown".
        """
        seen = model.encode(read_image(self.data.samples[number].image), self.options["labels"])
        templates = seen.options.text_templates(model.encoder)
        text = model.encode_text(self._texts, templates)
        empty, unknown = self._known_of(model, templates)
        whole = whole_image(seen)
        cosines = {
            S_PIXEL: model.score_words(seen.views, text)[0][0],
            S_IMAGE: model.score_words(seen.views, text, selection=Selection("s_image", "gap"))[0][0],
            CLIP: text @ whole,
        }
        record: Record = {
            "true": np.flatnonzero(self.data.truth[number]).tolist(),
            "scores": {name: _rounded(self._best_names(values)) for name, values in cosines.items()},
            "empty": _rounded(empty @ whole)[0],
        }
        if unknown:
            record["unknown"] = unknown
        return record

    def check(self, record: Record) -> None:
        """See `Benchmark`."""
        some = each(within(0, len(self.classes) - 1, integer))
        scores = fields(dict.fromkeys((S_PIXEL, S_IMAGE, CLIP), each(number, len(self.classes))), others=False)
        fields({"true": some, "scores": scores, "empty": number}, {"unknown": some})(record)

    def quality(self, record: Record) -> dict[str, float]:
        """The average precision of the image's own classes by s_pixel, NaN where it shows none."""
        true = np.zeros(len(self.classes), bool)
        true[record["true"]] = True
        return {"AP": average_precision(np.array(record["scores"][S_PIXEL]), true)}

    def resampler(self, records: Iterable[Record]) -> Statistic:
        """mAP by s_pixel, every drawn image ranked as often as it was drawn."""
        rows = [(record["scores"][S_PIXEL], record["true"]) for record in records]
        scores = np.array([row for row, _ in rows], np.float32)
        true = np.zeros(scores.shape, bool)
        for line, (_, shown) in zip(true, rows, strict=True):
            line[shown] = True

        def measure(counts: Counts) -> dict[str, np.ndarray]:
            found = np.stack([weighted_average_precisions(*one, counts) for one in zip(scores.T, true.T, strict=True)])
            known = np.isfinite(found)
            return {f"{S_PIXEL}: mAP": ratio(np.where(known, found, 0.0).sum(0), known.sum(0).astype(float))}

        return measure

    def show(self, model: TTD, number: int, record: Record) -> ItemPanels:
        """The image, and by each score as many of the best classes as it has, then those that are missed."""
        true = set(record["true"])
        words = []
        for name, scores in record["scores"].items():
            best = np.argsort(-np.array(scores), kind="stable")[: max(1, len(true))].tolist()
            shown = [*best, *sorted(true - set(best))]
            titles = [self.classes.titles[k] for k in shown]
            words.append(marked(name, titles, [k in best for k in shown], [k in true for k in shown]))
        image = read_image(self.data.samples[number].image)
        return ItemPanels((photo_panel("image", image),), (), tuple(words))

    def _best_names(self, values: Tensor) -> Tensor:
        """The best score among the names of each class: `[texts]` -> `[K]`."""
        best = torch.full((len(self.classes),), -torch.inf)
        return best.scatter_reduce(0, self._class_of, values.float().cpu(), "amax")

    def _known_of(self, model: TTD, templates: Sequence[str]) -> tuple[Tensor, list[int]]:
        """The empty sentence's embedding `[1,C]` and the classes that the model has no words for, found once."""
        if self._known is None or self._known[0] is not model:
            with torch.inference_mode():
                empty = model.encoder.encode_text([""], templates)
            unknown = [k for k, title in enumerate(self.classes.titles) if model.unknown_words([title])]
            self._known = (model, empty, unknown)
        return self._known[1:]

    def tally(self) -> _Scores:
        """All scores of all classes: they are ranked over the whole set, so they are kept (5 numbers per class)."""
        return _Scores(self.classes.titles)


def whole_image(seen: EncodedImage) -> Tensor:
    """CLIP's own embedding of an image `[C]`, normalised: the mean over the views (one and its mirror image)."""
    return normalize(torch.stack([view.features.pooled[0] for view in seen.views]).mean(0), dim=-1)


class _Scores(Tally):
    def __init__(self, titles: Sequence[str]) -> None:
        self.titles = list(titles)
        self.scores: dict[str, list[np.ndarray]] = {S_PIXEL: [], S_IMAGE: [], CLIP: []}
        self.empty: list[float] = []
        self.true: list[np.ndarray] = []
        self.unknown: set[int] = set()

    def add(self, record: Record) -> None:
        for name, rows in self.scores.items():
            rows.append(np.array(record["scores"][name], np.float32))
        self.empty.append(record["empty"])
        shown = np.zeros(len(self.titles), bool)
        shown[record["true"]] = True
        self.true.append(shown)
        self.unknown.update(record.get("unknown", ()))

    def result(self) -> Result:
        true = np.stack(self.true)
        scores = {name: np.stack(rows) for name, rows in self.scores.items()}
        scores[SURGERY] = without_empty(scores[CLIP], np.array(self.empty, np.float32))
        scores[SURGERY_LABELS] = without_common(scores[CLIP])
        scores[CONSTANT] = np.zeros(true.shape, np.float32)
        precisions = {name: class_average_precisions(values, true) for name, values in scores.items()}
        rows = [
            {
                "class": title,
                "images": int(true[:, k].sum()),
                **{f"AP {name}": float(values[k]) for name, values in precisions.items()},
            }
            for k, title in enumerate(self.titles)
        ]
        numbers = {f"{name}: mAP": mean_of_known(values) for name, values in precisions.items()}
        return Result(numbers, {"per_class": rows}, self._notes(true))

    def _notes(self, true: np.ndarray) -> tuple[str, ...]:
        notes = [f"mAP is the mean over classes; {CONSTANT!r} is the row of a score that never changes."]
        if absent := [self.titles[k] for k in np.flatnonzero(true.sum(axis=0) == 0)]:
            notes.append(f"{len(absent)} classes that no image shows are left out: {_listed(absent)}.")
        if bare := int((~true.any(1)).sum()):
            notes.append(f"{bare} of {len(true)} images show none of the classes; they count as negatives.")
        if self.unknown:
            names = [self.titles[k] for k in sorted(self.unknown)]
            notes.append(f"The model's vocabulary lacks words of {len(names)} classes: {_listed(names)}.")
        return tuple(notes)


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _rounded(values: Tensor) -> list[float]:
    return [round(value, _DIGITS) for value in values.float().cpu().tolist()]
