"""The benchmark `tagmask`: which words of a caption a model selects (Tables 2, 8, 9), and what its mask of the
whole caption covers (Table 3).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark, Record, Sample
from ttd.evaluation.bootstrap import Statistic, mean_of
from ttd.evaluation.datasets.labels import TURNED, oriented
from ttd.evaluation.datasets.tagmask import TagMaskRow, TagMaskSet
from ttd.evaluation.metrics import MaskCounts, TagCounts, mask_counts
from ttd.evaluation.report.panels import ItemPanels, MarkedWords, heat_panel, marked, outcome_panel, photo_panel
from ttd.evaluation.tasks.tag_tables import Cut, TagMaskTally, decided, decided_by
from ttd.files.schema import count, each, entries, fields, flag, mapping, number, optional, text
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.inference.protocols import unrefined_first
from ttd.negatives import digest
from ttd.scoring import SCORES
from ttd.selection import Selection
from ttd.taggers import Caption, Chosen, TextTagger
from ttd.text.words import is_stop_word

if TYPE_CHECKING:
    from PIL import Image

    from ttd.inference.views import EncodedImage
    from ttd.model import TTD

PARTS = ("tags", "masks")

log = logging.getLogger(__name__)


class TagMask(Benchmark):
    """Tag selection and caption masks on one set."""

    name = "tagmask"

    def __init__(
        self,
        data: TagMaskSet,
        tag_options: Options,
        mask_options: Options,
        *,
        parts: Sequence[str] = PARTS,
        scores: Sequence[str] = SCORES,
        stop_words: bool = False,
        shuffled: bool = True,
        taggers: Sequence[TextTagger] = (),
        rules: Sequence[str] = (),
        percentiles: Sequence[float] = (),
        negatives: Sequence[str] | None = None,
        cuts: Sequence[Cut] = (),
    ) -> None:
        """Chooses what to measure.

        Args:
            data: the set.
            tag_options, mask_options: for scoring words, and for the caption's mask.
            parts: "tags", "masks" or both.
            scores: which of `ttd.scoring.SCORES` to compare; s_image and s_text also by the rule "calibrated".
            stop_words: score stop words like other words; else they count as words that are never selected.
            shuffled: also score each image with the next image's caption: what the text alone achieves.
            taggers: of the text, see `ttd.taggers`.
            rules: also s_pixel by each of these rules of selection.
            percentiles: also s_pixel with the rule "negatives", a row for each of these percentiles.
            negatives: the words to compare with, as for `ttd.Selection`.
            cuts: also the caption's map cut in each of these ways, by which a threshold can be chosen.
        """
        self.data = data
        self.root = data.root
        self.options = {"tags": tag_options, "masks": mask_options}
        self.tag_options, self.mask_options = tag_options, mask_options
        self.parts, self.scores = tuple(parts), tuple(scores)
        self.stop_words, self.shuffled = stop_words, shuffled
        self.text = TextTags(taggers if "tags" in self.parts else (), data.rows)
        calibrated = [score for score in scores if score in ("s_image", "s_text")]
        self.others = {f"{score}, calibrated": Selection(score, "calibrated") for score in calibrated}
        self.others |= {f"s_pixel, {rule}": Selection("s_pixel", rule) for rule in rules}
        if any(selection.found.negatives for selection in self.others.values()):
            raise InputError("a rule that compares with negative words needs a percentile: give --percentile")
        self.rules = tuple(rules)
        self.percentiles = {f"s_pixel, negatives {value:g}": value for value in percentiles}
        self.decided = (*self.scores, *self.others, *self.percentiles)
        self.negatives = None if negatives is None else tuple(negatives)
        self.cuts = tuple(cuts)
        if self.parts == ("masks",) and not any(row.sample.truth for row in data.rows):
            raise InputError(f"{self.root} holds no masks: only its tags can be measured (--part tags)")

    @property
    def samples(self) -> Sequence[Sample]:
        """One for each captioned image."""
        return [row.sample for row in self.data.rows]

    def settings(self) -> dict[str, Any]:
        """Parts, scores, stop words, controls."""
        return {
            "parts": list(self.parts),
            "scores": list(self.scores),
            "score_stop_words": self.stop_words,
            "shuffled": self.shuffled,
            "vocabulary": len(self.data.vocabulary),
            "taggers": [tagger.settings for tagger in self.text.taggers],
            "rules": list(self.rules),
            "percentiles": list(self.percentiles.values()),
            "negatives": digest(self.negatives) if self.percentiles else None,
            "cuts": [cut.name for cut in self.cuts],
        }

    @property
    def asked(self) -> Sequence[str]:
        """See `Benchmark`."""
        return self.parts

    def prepare(self, numbers: Sequence[int]) -> None:
        """Asks the taggers of the text about many captions at once."""
        self.text.prepare(numbers)

    def measure(self, model: TTD, number: int) -> Record:
        """Scores of the caption's words, of the next caption's, of the vocabulary; pixel counts of the mask."""
        row = self.data.rows[number]
        image = read_image(row.sample.image)
        record: Record = {}
        if "masks" in self.parts and row.sample.truth:
            truth = _mask(row, image)
            seen = model.encode(image, self.mask_options) if self.cuts else image
            found = mask_counts(model.caption_mask(seen, row.caption, options=self.mask_options), truth)
            record["mask"] = [found.hit, found.wrong, found.missed, truth.size]
            if self.cuts:
                record["cuts"] = self._cuts(model, seen, row.caption, truth)
        if "tags" in self.parts:
            encoded = model.encode(image, self.tag_options)
            record["tags"] = self._tags(model, encoded, row)
            record["taggers"] = self.text.fetch(number)
            if self.shuffled and len(self.data.rows) > 1:
                record["shuffled"] = self._tags(model, encoded, self.data.rows[(number + 1) % len(self.data.rows)])
            if row.present is not None and self.data.vocabulary:
                words = self.data.vocabulary
                scored = model.tag(encoded, None, tags=words).words
                record["vocabulary"] = [word.score for word in scored]
        return record

    def _cuts(self, model: TTD, seen: EncodedImage | Image.Image, caption: str, truth: np.ndarray) -> list[list[int]]:
        """For each cut the pixels in both masks, predicted only, true only."""
        scales = dict.fromkeys(cut.scale for cut in self.cuts)
        maps = {scale: model.caption_map(seen, caption, self.mask_options, scale=scale) for scale in scales}
        counts = [mask_counts(maps[cut.scale] >= cut.threshold, truth) for cut in self.cuts]
        return [[found.hit, found.wrong, found.missed] for found in counts]

    def check(self, record: Record) -> None:
        """See `Benchmark`."""
        cuts = each(each(count, 3), len(self.cuts))
        vocabulary = each(number, len(self.data.vocabulary))
        fields({}, {"mask": each(count, 4), "cuts": cuts, "vocabulary": vocabulary})(record)
        for name in ("tags", "shuffled"):
            if name in record:
                self._check_tags(record[name])
        if "tags" in record:
            selected = each(flag, len(record["tags"]["words"]))
            fields({"taggers": mapping(optional(fields({"selected": selected, "others": each(text)})))})(record)

    def _check_tags(self, tags: Any) -> None:
        fields({"words": each(text), "asked": each(text), "decisions": mapping()})(tags)
        decided = each(entries(number, flag), len(tags["asked"]))
        decisions = fields(dict.fromkeys(self.decided, decided))
        fields({"true": each(flag, len(tags["words"])), "decisions": decisions})(tags)

    def quality(self, record: Record) -> dict[str, float]:
        """IoU of the caption's mask, F1 of its words by the first score."""
        found = {}
        if "mask" in record:
            found["IoU"] = MaskCounts(*record["mask"][:3]).overlap.iou
        if "tags" in record:
            counts = TagCounts()
            first = decided_by(record["tags"], self.scores[0])
            counts.add(first.selected, first.true)
            found["F1"] = counts.scores["F1"]
        return found

    def resampler(self, records: Iterable[Record]) -> Statistic:
        """F1 of the words by the first score, over all drawn captions; and their CaptionIoU."""
        f1s, ious = [], []  # of each caption the two sides of a ratio
        for record in records:
            found = decided_by(record["tags"], self.scores[0]) if "tags" in record else None
            # F1 = 2 TP / (selected + true)
            f1s.append(
                (2 * (found.selected & found.true).sum(), (found.selected.sum() + found.true.sum()))
                if found
                else (0, 0)
            )
            ious.append((MaskCounts(*record["mask"][:3]).overlap.iou, 1) if "mask" in record else (0, 0))
        tables = {f"{self.scores[0]}: F1": np.array(f1s, np.float64), "CaptionIoU": np.array(ious, np.float64)}
        measures = [mean_of(table[:, 0], name, table[:, 1]) for name, table in tables.items() if table[:, 1].any()]
        return lambda counts: {name: values for measure in measures for name, values in measure(counts).items()}

    def show(self, model: TTD, number: int, record: Record) -> ItemPanels:
        """The image, the true mask, the caption's map and mask (refined too), the words of every tagger."""
        row = self.data.rows[number]
        image = read_image(row.sample.image)
        words = tuple(self._marked(record)) if "tags" in record else ()
        if "mask" not in record:
            return ItemPanels((photo_panel("image", image),), (), words)
        truth = _mask(row, image)
        heat = model.caption_map(image, row.caption, replace(self.mask_options, refine="none"))
        panels = [heat_panel("caption's map", image, heat)]
        for title, options in unrefined_first(self.mask_options, model.encoder).items():
            found = model.caption_mask(image, row.caption, options=options)
            panels.append(outcome_panel(title, image, found, truth))
        return ItemPanels(
            (photo_panel("image", image), outcome_panel("truth", image, truth, truth)), tuple(panels), words
        )

    def _marked(self, record: Record) -> Iterator[MarkedWords]:
        tags = record["tags"]
        for score in self.decided:
            one = decided_by(tags, score)
            yield marked(score, one.words, one.selected.tolist(), one.true.tolist())
        for name, found in record["taggers"].items():
            one = decided(tags, found)
            yield marked(name, one.words, one.selected.tolist(), one.true.tolist())

    def _tags(self, model: TTD, encoded: EncodedImage, row: TagMaskRow) -> Record:
        """Words and truth of a caption; for each score the distinct candidates' scores and decisions."""
        asked = [w for w in dict.fromkeys(row.words) if self.stop_words or not is_stop_word(w)]
        decisions: dict[str, Any] = {}
        rules = {score: Selection(score) for score in self.scores} | self.others
        for name, rule in rules.items():
            found = model.tag(encoded, row.caption, tags=asked, selection=rule).words if asked else ()
            decisions[name] = [[word.score, word.selected] for word in found]
        if self.percentiles and asked:
            rule = Selection(rule="negatives", negatives=self.negatives)
            compared = model.tag(encoded, row.caption, tags=asked, selection=rule).words
            for name, percentile in self.percentiles.items():
                decisions[name] = [[w.score, w.percentile is not None and w.percentile >= percentile] for w in compared]
        decisions |= {name: [] for name in self.percentiles if name not in decisions}
        return {
            "words": list(row.words),
            "true": [word in row.true for word in row.words],
            "asked": asked,
            "decisions": decisions,
        }

    def tally(self) -> TagMaskTally:
        """Tables of both parts."""
        compared = (*self.others, *self.percentiles)
        return TagMaskTally(self.data, self.scores, compared, self.text.names, self.cuts)


def _mask(row: TagMaskRow, image: Image.Image) -> np.ndarray:
    """The true mask, bool [H,W]; raises `InputError` where it has not the image's size."""
    path = row.sample.truth[0]
    truth, how = oriented(row.mask(), path, row.sample.image, (image.height, image.width))
    if how == TURNED:
        log.warning("%s is %s.", path, how)
    return truth


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


def _record(chosen: Chosen | None) -> dict[str, Any] | None:
    return None if chosen is None else {"selected": list(chosen.selected), "others": list(chosen.others)}
