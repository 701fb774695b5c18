"""Single tag bias measured over a TagMask set (`ttd bias`); what is measured of a caption: `ttd.benchmarks.bias`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ttd.benchmarks.benchmark import Benchmark, Record, Result, Sample, Tally
from ttd.benchmarks.bias import Lit, bias, lit
from ttd.benchmarks.label_files import read_mask
from ttd.benchmarks.tagmask_set import TagMaskRow, TagMaskSet, word_mask
from ttd.errors import InputError
from ttd.images import read_image
from ttd.inference import resolve

if TYPE_CHECKING:
    from PIL import Image

    from ttd.model import TTD
    from ttd.views import EncodedImage

REGIONS = ("auto", "truth", "own")
WHOLE = "whole picture"


class SingleTagBias(Benchmark):
    """Captions with at least two true words: the others cannot be biased towards one of several."""

    name = "bias"

    def __init__(
        self, data: TagMaskSet, tag_options: dict[str, Any], mask_options: dict[str, Any], regions: str = "auto"
    ) -> None:
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
            raise InputError(f"no caption of {data.root} has two true words: there is nothing to be biased between")
        missing = next((path for row in self.rows for path in self._files(row) if not path.is_file()), None)
        if regions == "truth" and missing is not None:
            raise InputError(f"{missing} does not exist: every true word needs its mask, or take --regions own")
        if regions not in REGIONS:
            raise InputError(f"unknown regions {regions!r}: choose from {', '.join(REGIONS)}")
        self.regions = regions if regions != "auto" else "own" if missing is not None else "truth"

    @property
    def samples(self) -> Sequence[Sample]:
        """Pictures with their words' masks, where these count."""
        truth = self.regions == "truth"
        return [Sample(row.sample.id, row.sample.image, self._files(row) if truth else ()) for row in self.rows]

    def settings(self) -> dict[str, Any]:
        """Whose regions."""
        return {"regions": self.regions}

    def measure(self, model: TTD, number: int) -> Record:
        """Pixels of the caption's mask in the words' regions, and the words' shares of the score."""
        row = self.rows[number]
        words = true_words(row)
        picture = read_image(row.sample.image)
        for_masks, for_scores = self._looks(model, picture)
        mask = model.caption_mask(for_masks, row.caption, **self.options["masks"])
        found = lit(mask, self._regions(model, row, picture, for_masks))
        return {
            "words": words,
            "hits": found.hits.tolist(),
            "areas": found.areas.tolist(),
            "counts": [found.mask, found.inside, found.union, found.pixels],
            "score": self._score(model, for_scores, words),
        }

    def _score(self, model: TTD, look: Image.Image | EncodedImage, words: list[str]) -> list[float]:
        """The words' shares of the pooled picture's score: a softmax over them at the model's logit scale."""
        found = model.tag(look, None, tags=words, score="s_image", selection="softmax", **self.options["tags"])
        return [word.score for word in found.words]

    def _looks(self, model: TTD, picture: Image.Image) -> tuple[Image.Image | EncodedImage, Image.Image | EncodedImage]:
        """The picture for masks and for scores: encoded once where it is asked several times in the same way."""
        tags, masks = (resolve(**self.options[name]).view for name in ("tags", "masks"))
        if tags == masks:
            encoded = model.encode(picture, **self.options["masks"])
            return encoded, encoded
        return (model.encode(picture, **self.options["masks"]) if self.regions == "own" else picture), picture

    def _files(self, row: TagMaskRow) -> tuple[Path, ...]:
        """The masks of the true words, in the order of `true_words`."""
        return tuple(word_mask(self.root, row.sample.id, word) for word in true_words(row))

    def regions_of(self, model: TTD, number: int) -> NDArray[np.bool_]:
        """Where each true word of a caption is, bool [n,H,W]."""
        row = self.rows[number]
        picture = read_image(row.sample.image)
        return self._regions(model, row, picture, picture)

    def _regions(
        self, model: TTD, row: TagMaskRow, picture: Image.Image, look: Image.Image | EncodedImage
    ) -> NDArray[np.bool_]:
        if self.regions == "own":
            return self._own_regions(model, look, true_words(row))
        return self._true_regions(row, picture)

    def _true_regions(self, row: TagMaskRow, picture: Image.Image) -> NDArray[np.bool_]:
        masks = [read_mask(path) for path in self._files(row)]
        if wrong := [mask.shape for mask in masks if mask.shape != (picture.height, picture.width)]:
            raise InputError(
                f"a word's mask is {wrong[0][1]}x{wrong[0][0]} pixels, the picture {picture.width}x{picture.height}: "
                "they must have the same size"
            )
        return np.stack(masks)

    def _own_regions(self, model: TTD, look: Image.Image | EncodedImage, words: list[str]) -> NDArray[np.bool_]:
        options = self.options["masks"]
        masks = model.caption_masks(look, words, **options)
        nearest = model.segment(look, words, **{**options, "background": False, "refine": "none"}).label_map
        return np.asarray(masks & (nearest == np.arange(len(words))[:, None, None]))

    def tally(self) -> _BiasTally:
        """Means over captions."""
        return _BiasTally(self)


def true_words(row: TagMaskRow) -> list[str]:
    """The distinct true words of a caption, in its order."""
    return [word for word in dict.fromkeys(row.words) if word in row.true]


def of_record(record: Record) -> tuple[Lit, NDArray[np.float64]]:
    """What `SingleTagBias.measure` counted, and the words' shares of the score."""
    mask, inside, union, pixels = record["counts"]
    hits, areas = np.array(record["hits"], np.int64), np.array(record["areas"], np.int64)
    return Lit(hits, areas, mask, inside, union, pixels), np.array(record["score"], np.float64)


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
