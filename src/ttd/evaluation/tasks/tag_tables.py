"""Tags and masks of captions added up: one row per score or tagger (Tables 2 and 9) with the controls beside it, at
every threshold (Figure 8), and the captions' masks (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ttd.evaluation.benchmark import Record, Result, Tally
from ttd.evaluation.datasets.tagmask import TagMaskRow, TagMaskSet
from ttd.evaluation.metrics import MaskCounts, Overlap, TagCounts, auc, average_precision, mean_of_known
from ttd.files import whole_file
from ttd.inference.dense import Scale
from ttd.scoring import select_threshold
from ttd.text.words import is_unspaced

EVERY_NOUN = "every noun"
SHUFFLED = " (shuffled)"
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


THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
MEASURES = ("precision", "recall", "F1", "accuracy")


class Sweep:
    """Counts of each score at each threshold."""

    def __init__(self, scores: Sequence[str]) -> None:
        self.counts = {score: {threshold: TagCounts() for threshold in THRESHOLDS} for score in scores}

    def add(self, tags: Record) -> None:
        """One caption's record."""
        right = np.array(tags["true"], bool)
        for score, at in self.counts.items():
            values = torch.tensor([value for value, _ in tags["decisions"][score]], dtype=torch.float64)
            for threshold, counts in at.items():
                chosen = set(compress(tags["asked"], select_threshold(values, threshold).tolist()))
                counts.add(np.array([word in chosen for word in tags["words"]], bool), right)

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


class Cut(NamedTuple):
    """A way to make a mask from a caption's map: where the map, on a scale of `TTD.heatmaps`, reaches a threshold."""

    scale: Scale
    threshold: float

    @property
    def name(self) -> str:
        """As in tables: "norm 0.5"."""
        return f"{self.scale} {self.threshold:g}"


def caption_means(overlaps: Sequence[Overlap]) -> dict[str, float]:
    """CaptionIoU, mFPR and mFNR: means over captions, which sum to 1; NaN without captions."""
    kinds = {
        "CaptionIoU": [one.iou for one in overlaps],
        "mFPR": [one.fpr for one in overlaps],
        "mFNR": [one.fnr for one in overlaps],
    }
    return {name: float(np.mean(values)) if values else float("nan") for name, values in kinds.items()}


def decided_by(tags: Record, score: str) -> Decided:
    """What one score made of a caption, from its record."""
    pairs = [(value, bool(chosen)) for value, chosen in tags["decisions"][score]]
    return decide(tags["words"], tags["true"], dict(zip(tags["asked"], pairs, strict=True)))


class TagMaskTally(Tally):
    """Both parts added up.

    Args:
        data: the set.
        scores, compared: rows of the tables: scores by their own rule, and s_pixel by others.
        taggers: names of the taggers of the text.
        cuts: ways in which captions' maps were also cut.
    """

    def __init__(
        self,
        data: TagMaskSet,
        scores: Sequence[str],
        compared: Sequence[str],
        taggers: Sequence[str],
        cuts: Sequence[Cut] = (),
    ) -> None:
        self.nouns_known = any(row.nouns for row in data.rows)
        self.words = data.vocabulary
        self.rows_by_id = {row.sample.id: row for row in data.rows}
        self.next_row = {row.sample.id: data.rows[(i + 1) % len(data.rows)] for i, row in enumerate(data.rows)}
        self.tables = {name: TagRow() for name in (*scores, *compared)}
        self.shuffled = {name: TagRow() for name in (*scores, *compared)}
        self.every_noun = TagRow()
        self.taggers = {name: TagRow() for name in taggers}
        self.silent = dict.fromkeys(taggers, 0)
        self.unspaced = 0
        self.sweep = Sweep([score for score in scores if score != "s_pixel"])
        self.masks: list[tuple[str, MaskCounts, int]] = []
        self.cuts: dict[Cut, list[Overlap]] = {cut: [] for cut in cuts}
        self.present_above_absent = PresentAboveAbsent()

    def add(self, record: Record) -> None:
        """See `Tally`."""
        row = self.rows_by_id[record["id"]]
        if "mask" in record:
            *counts, pixels = record["mask"]
            self.masks.append((record["id"], MaskCounts(*counts), pixels))
            for overlaps, counts in zip(self.cuts.values(), record.get("cuts", ()), strict=True):
                overlaps.append(MaskCounts(*counts).overlap)
        if "tags" in record:
            self.unspaced += is_unspaced(row.caption)
            self._add_tags(record["tags"], row, self.tables)
            nouns = dict.fromkeys(row.nouns, (1.0, True))
            tags = record["tags"]
            self.every_noun.add(decide(tags["words"], tags["true"], nouns), *self._controls(tags["words"], tags, row))
            for name, found in record["taggers"].items():
                one = decided(tags, found)
                self.taggers[name].add(one, *self._controls(one.words, tags, row))
                self.silent[name] += found is None
            self.sweep.add(tags)
        if "shuffled" in record:
            # The truth stays the caption's own: what would be found without looking at its image.
            self._add_tags(record["shuffled"], self.next_row[record["id"]], self.shuffled)
        if "vocabulary" in record:
            present = np.array([word in (row.present or ()) for word in self.words])
            self.present_above_absent.add(np.array(record["vocabulary"], np.float32), present)

    def _add_tags(self, tags: Record, row: TagMaskRow, tables: dict[str, TagRow]) -> None:
        controls = self._controls(tags["words"], tags, row)
        for name, table in tables.items():
            table.add(decided_by(tags, name), *controls)

    def _controls(self, words: Sequence[str], tags: Record, row: TagMaskRow) -> tuple[np.ndarray, np.ndarray | None]:
        """Which words are nouns that are known not to be in the image, and which of the candidates name nothing."""
        absent = row.nouns - row.true - (row.present or frozenset())
        filler = set(tags["asked"]) - row.nouns - row.true if self.nouns_known else set()
        missing, idle = (np.array([w in kind for w in words], bool) for kind in (absent, filler))
        return missing, idle if self.nouns_known else None

    def result(self) -> Result:
        """See `Tally`."""
        numbers: dict[str, float] = {}
        rows: dict[str, list[dict[str, Any]]] = {}
        notes = ["Published rows are about the authors' CC3M-TagMask."]
        notes += ["Words are counted at every occurrence; stop words that were not scored count as never selected."]
        if self.tables and next(iter(self.tables.values())).precisions:
            rows["tags"] = self._tag_rows()
            for row in rows["tags"]:
                numbers |= {f"{row['tagger']}: {name}": row[name] for name in row if name != "tagger"}
            rows["sweep"] = self.sweep.rows()
        if self.present_above_absent:
            numbers |= self.present_above_absent.numbers
        elif rows:
            notes.append("No AUC: the set does not say which words of a vocabulary are in each image.")
        if rows and not self.nouns_known:
            notes.append("Without vocabulary.txt it is not known which named things are absent.")
        silent = {name: count for name, count in self.silent.items() if count}
        notes += [f"{name} gave no readable answer to {n} captions: nothing selected." for name, n in silent.items()]
        if self.unspaced:
            notes.append(f"{self.unspaced} captions: words that are written without spaces count as one.")
        if self.masks:
            masks = [(name, counts.overlap, counts, pixels) for name, counts, pixels in self.masks]
            rows["captions"] = [
                {"id": name, "CaptionIoU": o.iou, "FPR": o.fpr, "FNR": o.fnr} for name, o, _, _ in masks
            ]
            numbers |= caption_means([o for _, o, _, _ in masks])
            whole = [(counts.hit + counts.missed) / pixels for _, _, counts, pixels in masks]
            numbers["whole image IoU"] = float(np.mean(whole))
            hit, wrong, missed = (sum(getattr(c, name) for _, _, c, _ in masks) for name in ("hit", "wrong", "missed"))
            numbers["pooled CaptionIoU"] = MaskCounts(hit, wrong, missed).overlap.iou
            numbers["empty masks"] = float(np.mean([not counts.hit + counts.wrong for _, _, counts, _ in masks]))
            if self.cuts:
                rows["cuts"] = [{"cut": cut.name, **caption_means(overlaps)} for cut, overlaps in self.cuts.items()]
            notes.append(f"Masks of {len(masks)} captions.")
        return Result(numbers, rows, tuple(notes))

    def _tag_rows(self) -> list[dict[str, Any]]:
        tables = {**self.tables, **self.taggers}
        if self.nouns_known:
            tables[EVERY_NOUN] = self.every_noun
        tables |= {f"{name}{SHUFFLED}": table for name, table in self.shuffled.items() if table.precisions}
        return [{"tagger": name, **table.numbers} for name, table in tables.items()]
