"""Referring segmentation: the pixels that an expression means, with the mask of its text (Table 11)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark, Record, Result, Sample, Tally
from ttd.evaluation.bootstrap import Statistic, mean_of
from ttd.evaluation.datasets.refcoco import ReferSet
from ttd.evaluation.metrics import MaskCounts, mask_counts
from ttd.evaluation.report.panels import ItemPanels, outcome_panel, photo_panel
from ttd.files.schema import count, each, entries, fields, integer, within
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.text.embeddings import shortened

_RECORD = fields({"expressions": each(entries(integer, count, count, count)), "pixels": within(1, 1 << 53, integer)})

if TYPE_CHECKING:
    from ttd.model import TTD


PRECISIONS = (0.5, 0.6, 0.7, 0.8, 0.9)  # IoUs that an expression's mask must reach for Precision@IoU
MOST_SHOWN = 3  # expressions of an image on a page


class Referring(Benchmark):
    """Masks of expressions against the objects that they mean, at the image's size.

    Args:
        data: one split of a set.
        options: for `TTD.caption_masks`.
    """

    def __init__(self, data: ReferSet, options: Options) -> None:
        self.name, self.root, self.options = data.name, data.root, {"masks": options}
        self.data = data

    @property
    def samples(self) -> Sequence[Sample]:
        """One for each image, with all its expressions."""
        return [image.sample for image in self.data.images]

    def settings(self) -> dict[str, Any]:
        """The split and who divided."""
        return {"split": self.data.split, "by": self.data.by}

    def fingerprint(self) -> str:
        """sha256 over the images (see `Benchmark.fingerprint`), the expressions and their objects."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for image in self.data.images:
            for e in image.expressions:
                line = f"{e.id}\t{e.text}\t{e.annotation}\t{image.segmentations[e.annotation]}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def measure(self, model: TTD, number: int) -> Record:
        """For every expression its number and the pixels in both masks, predicted only, true only; and all pixels.

        The image is encoded once for all its expressions, and every distinct text is asked once.
        """
        item = self.data.images[number]
        image = read_image(item.sample.image)
        if (image.height, image.width) != item.size:
            raise InputError(
                f"{item.sample.image} is {image.width}x{image.height} pixels, its annotation says "
                f"{item.size[1]}x{item.size[0]}: they must have the same size"
            )
        truths = {annotation: item.mask(annotation) for annotation in item.segmentations}
        texts = list(dict.fromkeys(expression.text for expression in item.expressions))
        masks = dict(zip(texts, model.caption_masks(image, texts, options=self.options["masks"]), strict=True))
        counts = []
        for expression in item.expressions:
            found = mask_counts(masks[expression.text], truths[expression.annotation])
            counts.append([expression.id, found.hit, found.wrong, found.missed])
        return {"expressions": counts, "pixels": item.size[0] * item.size[1]}

    def check(self, record: Record) -> None:
        """See `Benchmark`."""
        _RECORD(record)

    def quality(self, record: Record) -> dict[str, float]:
        """The mean IoU over the image's expressions."""
        ious = [MaskCounts(*pixels).overlap.iou for _, *pixels in record["expressions"]]
        return {"IoU": float(np.mean(ious))}

    def resampler(self, records: Iterable[Record]) -> Statistic:
        """The mean over the expressions of the drawn images."""
        ious = [[MaskCounts(*pixels).overlap.iou for _, *pixels in record["expressions"]] for record in records]
        return mean_of(np.array([sum(each) for each in ious]), "mIoU", np.array([float(len(each)) for each in ious]))

    def show(self, model: TTD, number: int, record: Record) -> ItemPanels:
        """The image, and the masks of its first expressions against their objects."""
        item = self.data.images[number]
        image = read_image(item.sample.image)
        asked = list({expression.text: expression for expression in item.expressions}.values())[:MOST_SHOWN]
        masks = model.caption_masks(image, [expression.text for expression in asked], options=self.options["masks"])
        found = tuple(
            outcome_panel(shortened(expression.text), image, mask, item.mask(expression.annotation))
            for expression, mask in zip(asked, masks, strict=True)
        )
        return ItemPanels((photo_panel("image", image),), found)

    def tally(self) -> _ExpressionTally:
        """Means over expressions, and the ratio of all pixels."""
        return _ExpressionTally(self.data)


class _ExpressionTally(Tally):
    def __init__(self, data: ReferSet) -> None:
        self.data = data
        self.texts = {image.sample.id: {e.id: e.text for e in image.expressions} for image in data.images}
        self.rows: list[dict[str, Any]] = []
        self.whole: list[float] = []
        self.hit = self.union = self.empty = 0
        self.images = 0

    def add(self, record: Record) -> None:
        self.images += 1
        for key, *pixels in record["expressions"]:
            counts = MaskCounts(*pixels)
            name = record["id"]
            text = self.texts[name][key]
            self.rows.append({"id": key, "image": name, "expression": text, "IoU": counts.overlap.iou})
            self.whole.append((counts.hit + counts.missed) / record["pixels"])
            self.empty += not counts.hit + counts.wrong
            self.hit += counts.hit
            self.union += counts.hit + counts.wrong + counts.missed

    def result(self) -> Result:
        ious = np.array([row["IoU"] for row in self.rows])
        numbers = {
            "mIoU": float(ious.mean()),
            "pooled IoU": self.hit / self.union if self.union else float("nan"),
            **{f"Precision@{least}": float((ious >= least).mean()) for least in PRECISIONS},
            "whole image IoU": float(np.mean(self.whole)),
            "empty masks": self.empty / len(self.rows),
        }
        notes = [
            f"{self.data.name} {self.data.split} ({self.data.by}): {len(self.rows)} expressions on {self.images} "
            "images. mIoU is the mean over expressions, pooled IoU all intersections over all unions, "
            "Precision@X the share of expressions with an IoU of at least X, whole image IoU what a mask of everything "
            "would get, empty masks the share of those whose map nowhere reaches the threshold."
        ]
        if self.data.wordless:
            notes.append(f"{self.data.wordless} expressions without words are left out.")
        if self.data.name == "refcocog":
            notes.append("The paper does not say whose val split of RefCOCOg its table is about.")
        return Result(numbers, {"expressions": self.rows}, tuple(notes))
