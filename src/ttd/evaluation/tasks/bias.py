"""Single tag bias as numbers: how unevenly the true words of a caption share its map and its score.

Definitions, ranges and what a perfect and a fully biased model get: docs/bias.md. All arrays are NumPy; n words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark, Record, Result, Sample, Tally
from ttd.evaluation.datasets.labels import read_mask
from ttd.evaluation.datasets.tagmask import TagMaskRow, TagMaskSet, word_mask
from ttd.files.schema import count, each, fields, number, text
from ttd.images import read_image
from ttd.inference.options import Options

if TYPE_CHECKING:
    from PIL import Image

    from ttd.inference.views import EncodedImage
    from ttd.model import TTD

COVERED = 0.5  # of a word's region, above which the caption's mask covers the word

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RegionCounts:
    """What a caption's mask lights up, in pixels.

    Attributes:
        hits: of each word's region, those inside the mask: int64 [n].
        areas: of each word's region: int64 [n].
        mask: of the mask.
        inside: of the mask, those in any word's region.
        union: of all regions together.
        pixels: of the image.
    """

    hits: NDArray[np.int64]
    areas: NDArray[np.int64]
    mask: int
    inside: int
    union: int
    pixels: int

    @property
    def coverage(self) -> Floats:
        """c: the share of each word's region that the mask lights up, 0..1; an empty region counts as 0."""
        return self.hits / np.maximum(self.areas, 1)

    @property
    def outside(self) -> float:
        """The share of the mask outside all regions; NaN of an empty mask."""
        return 1 - self.inside / self.mask if self.mask else float("nan")

    @property
    def outside_of_all(self) -> float:
        """The same for a mask that is the whole image."""
        return 1 - self.union / self.pixels


def lit(mask: NDArray[np.bool_], regions: NDArray[np.bool_]) -> RegionCounts:
    """Counts the pixels of a caption's mask [H,W] in the regions [n,H,W] of its words, which may overlap."""
    union = regions.any(0)
    return RegionCounts(
        hits=(regions & mask).sum((1, 2), dtype=np.int64),
        areas=regions.sum((1, 2), dtype=np.int64),
        mask=int(mask.sum()),
        inside=int((mask & union).sum()),
        union=int(union.sum()),
        pixels=mask.size,
    )


def shares(values: Floats) -> Floats:
    """Values [n], none negative, as shares of their sum; NaN where all are 0."""
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), np.nan)


def entropy(portions: Floats) -> float:
    """Entropy of shares [n], n >= 2, over that of equal shares: 1 for equal shares, 0 where one word has all.

    NaN shares give NaN.
    """
    if np.isnan(portions).any():
        return float("nan")
    positive = portions[portions > 0]
    # `+ 0.0`: one word with all would else give -0.
    return float(-(positive * np.log(positive)).sum() / np.log(len(portions)) + 0.0)


def top_share(portions: Floats) -> float:
    """The largest of the shares [n]: 1/n for equal shares, 1 where one word has all."""
    return float(portions.max())


def bias(found: RegionCounts, score: Floats) -> dict[str, float]:
    """The measures of one caption from its mask and its words' shares of the score [n]."""
    portions = shares(found.coverage)
    covered = found.coverage > COVERED
    return {
        "map entropy": entropy(portions),
        "map top share": top_share(portions),
        "covered": float(covered.mean()),
        "all covered": float(covered.all()),
        "outside": found.outside,
        "score entropy": entropy(score),
        "score top share": top_share(score),
        "even share": 1 / len(score),
    }


REGIONS = ("auto", "truth", "own")
WHOLE = "whole image"


class SingleTagBias(Benchmark):
    """Captions with at least two true words: the others cannot be biased towards one of several."""

    name = "bias"

    def __init__(self, data: TagMaskSet, tag_options: Options, mask_options: Options, regions: str = "auto") -> None:
        """Chooses the regions of words.

        Args:
            data: the set.
            tag_options: for scoring words.
            mask_options: for the caption's mask.
            regions: "truth": the files masks/ID/WORD.png; "own": where a word's own mask is, and it is the most
                similar of the true words; "auto": truth where every word of the set has its file.

        Raises:
            InputError: no caption has two true words, or the set lacks a word's mask.
        """
        self.root = data.root
        self.options = {"tags": tag_options, "masks": mask_options}
        self.rows = [row for row in data.rows if len(row.true) >= 2]
        self.left_out = len(data.rows) - len(self.rows)
        if not self.rows:
            raise InputError(f"no caption of {data.root} has two true words: bias needs at least two")
        missing = next((path for row in self.rows for path in self._files(row) if not path.is_file()), None)
        if regions == "truth" and missing is not None:
            raise InputError(f"{missing} does not exist: every true word needs its mask, or take --regions own")
        if regions not in REGIONS:
            raise InputError(f"unknown regions {regions!r}: choose from {', '.join(REGIONS)}")
        self.regions = regions if regions != "auto" else "own" if missing is not None else "truth"

    @property
    def samples(self) -> Sequence[Sample]:
        """Images with their words' masks, where these count."""
        truth = self.regions == "truth"
        return [Sample(row.sample.id, row.sample.image, self._files(row) if truth else ()) for row in self.rows]

    def settings(self) -> dict[str, Any]:
        """Whose regions."""
        return {"regions": self.regions}

    def measure(self, model: TTD, number: int) -> Record:
        """Pixels of the caption's mask in the words' regions, and the words' shares of the score."""
        row = self.rows[number]
        words = true_words(row)
        image = read_image(row.sample.image)
        for_masks, for_scores = self._looks(model, image)
        mask = model.caption_mask(for_masks, row.caption, options=self.options["masks"])
        found = lit(mask, self._regions(model, row, image, for_masks))
        return {
            "words": words,
            "hits": found.hits.tolist(),
            "areas": found.areas.tolist(),
            "counts": [found.mask, found.inside, found.union, found.pixels],
            "score": self._score(model, for_scores, words),
        }

    def _score(self, model: TTD, seen: Image.Image | EncodedImage, words: list[str]) -> list[float]:
        """The words' shares of the pooled image's score: a softmax over them at the model's logit scale."""
        found = model.tag(seen, None, tags=words, selection="s_image", options=self.options["tags"])
        return [word.score for word in found.words]

    def _looks(self, model: TTD, image: Image.Image) -> tuple[Image.Image | EncodedImage, Image.Image | EncodedImage]:
        """The image for masks and for scores: encoded once where it is asked several times in the same way."""
        if self.options["tags"].view == self.options["masks"].view:
            encoded = model.encode(image, self.options["masks"])
            return encoded, encoded
        return (model.encode(image, self.options["masks"]) if self.regions == "own" else image), image

    def _files(self, row: TagMaskRow) -> tuple[Path, ...]:
        """The masks of the true words, in the order of `true_words`."""
        return tuple(word_mask(self.root, row.sample.id, word) for word in true_words(row))

    def regions_of(self, model: TTD, number: int) -> NDArray[np.bool_]:
        """Where each true word of a caption is, bool [n,H,W]."""
        row = self.rows[number]
        image = read_image(row.sample.image)
        return self._regions(model, row, image, image)

    def _regions(
        self, model: TTD, row: TagMaskRow, image: Image.Image, seen: Image.Image | EncodedImage
    ) -> NDArray[np.bool_]:
        if self.regions == "own":
            return self._own_regions(model, seen, true_words(row))
        return self._true_regions(row, image)

    def _true_regions(self, row: TagMaskRow, image: Image.Image) -> NDArray[np.bool_]:
        masks = [read_mask(path) for path in self._files(row)]
        if wrong := [mask.shape for mask in masks if mask.shape != (image.height, image.width)]:
            raise InputError(
                f"a word's mask is {wrong[0][1]}x{wrong[0][0]} pixels, the image {image.width}x{image.height}: "
                "they must have the same size"
            )
        return np.stack(masks)

    def _own_regions(self, model: TTD, seen: Image.Image | EncodedImage, words: list[str]) -> NDArray[np.bool_]:
        options = self.options["masks"]
        masks = model.caption_masks(seen, words, options=options)
        nearest = model.segment(seen, words, replace(options, background=False, refine="none")).label_map
        return np.asarray(masks & (nearest == np.arange(len(words))[:, None, None]))

    def check(self, record: Record) -> None:
        """See `Benchmark`."""
        fields({"words": each(text)})(record)
        some = len(record["words"])
        pixels = {"hits": each(count, some), "areas": each(count, some), "counts": each(count, 4)}
        fields({**pixels, "score": each(number, some)})(record)

    def tally(self) -> _BiasTally:
        """Means over captions."""
        return _BiasTally(self)


def true_words(row: TagMaskRow) -> list[str]:
    """The distinct true words of a caption, in its order."""
    return [word for word in dict.fromkeys(row.words) if word in row.true]


def of_record(record: Record) -> tuple[RegionCounts, NDArray[np.float64]]:
    """What `SingleTagBias.measure` counted, and the words' shares of the score."""
    mask, inside, union, pixels = record["counts"]
    hits, areas = np.array(record["hits"], np.int64), np.array(record["areas"], np.int64)
    return RegionCounts(hits, areas, mask, inside, union, pixels), np.array(record["score"], np.float64)


class _BiasTally(Tally):
    def __init__(self, benchmark: SingleTagBias) -> None:
        self.benchmark = benchmark
        self.rows: list[dict[str, Any]] = []
        self.whole: list[float] = []

    def add(self, record: Record) -> None:
        found, score = of_record(record)
        words = " ".join(record["words"])
        self.rows.append({"id": record["id"], "words": words, **bias(found, score)})
        self.whole.append(found.outside_of_all)

    def result(self) -> Result:
        measures = [name for name in self.rows[0] if name not in ("id", "words")] if self.rows else []
        numbers = {name: _mean([row[name] for row in self.rows]) for name in measures}
        numbers[f"{WHOLE}: outside"] = _mean(self.whole)
        whose = "their masks in the set" if self.benchmark.regions == "truth" else "the model's own masks"
        notes = [f"Words' regions are {whose}."]
        if self.benchmark.left_out:
            notes.append(f"{self.benchmark.left_out} captions with fewer than two true words are left out.")
        if dark := sum(bool(np.isnan(row["map entropy"])) for row in self.rows):
            notes.append(f"The masks of {dark} captions meet none of their words: these have no map entropy.")
        return Result(numbers, {"captions": self.rows}, tuple(notes))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
