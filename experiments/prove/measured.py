"""One model measured on scenes: the numbers of the tables, and what their intervals need.

Tags, captions' masks and classes are measured by `ttd.evaluation` on scenes written as an ordinary set. What no
benchmark asks stands here: a background among nouns at many thresholds from one map, retrieval, single nouns.

Shapes: S scenes, N nouns of the world, G groups of scenes, K thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ttd.evaluation.benchmark import Record
from ttd.evaluation.datasets.tagmask import TagMaskRow, TagMaskSet, read_tagmask
from ttd.evaluation.metrics import MaskCounts, class_scores, confusion_matrix, mean_of_known
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.runner import Measurements, measure_all
from ttd.evaluation.tasks.multilabel import whole_image
from ttd.evaluation.tasks.tag_tables import EVERY_NOUN, SHUFFLED, THRESHOLDS, Cut, caption_means
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes.nouns import BACKGROUNDS, NOUNS, WORDS
from ttd.scenes.scene import Scene, Scenes
from ttd.scenes.write import write_tagmask

GROUPS = 16
"""Scenes are left out of the measures in so many groups, for the intervals of `experiments.prove.rows`."""
PAPER_THRESHOLD = 0.5
BY_NORM = tuple(Cut("norm", threshold) for threshold in THRESHOLDS)
BY_P = tuple(Cut("calibrated", threshold) for threshold in THRESHOLDS)
AMONG = 256  # images and captions that retrieval chooses from
_PLACE = {noun: place for place, noun in enumerate(NOUNS)}
_TAGS = ("precision", "recall", "F1", "accuracy", "mAP", "absent selected")

Numbers = dict[str, float]
Keep = Callable[[Record], bool]


@dataclass(frozen=True)
class Measured:
    """What one model does on test scenes.

    Attributes:
        numbers: measures by name, in 0..1.
        without: each measure again without each of the G groups of scenes.
        controls: what needs no model: "every noun", and the whole image as a mask.
    """

    numbers: Numbers
    without: dict[str, list[float]]
    controls: Numbers


@dataclass(frozen=True)
class Thresholds:
    """Of captions' masks, by `norm` and by p, and of the background by p."""

    norm: float = PAPER_THRESHOLD
    p: float = PAPER_THRESHOLD
    background: float = PAPER_THRESHOLD


def measure(model: TTD, folder: Path, test: int, validation: int) -> Measured:
    """Measures a model on `test` scenes; `validation` scenes choose the thresholds.

    Args:
        model: before or after training.
        folder: where the scenes are written, or were.
        test, validation: how many.
    """
    thresholds = choose_thresholds(model, scene_set(folder, "validation", validation))
    evidence = Evidence(model, scene_set(folder, "test", test), thresholds)
    chosen = {
        "threshold of min-max": thresholds.norm,
        "threshold of p": thresholds.p,
        "background's threshold": thresholds.background,
    }
    parts = [evidence.numbers({group}) for group in range(GROUPS)]
    numbers = evidence.numbers(set())
    without = {name: [part[name] for part in parts] for name in numbers}
    return Measured({**numbers, **chosen}, without, evidence.controls())


def scene_set(folder: Path, split: str, count: int) -> TagMaskSet:
    """The first scenes of a split as a TagMask set, which is written where it is not there yet.

    A caption's words count once, and only captions with a true word have a mask. The last scene comes first: a
    benchmark shows each image the caption after its own, so every caption meets the image of the scene after it.
    """
    root = folder / f"{split}-{count}"
    if not (root / "tags.jsonl").exists():
        write_tagmask(Scenes(split), count, root)
    data = read_tagmask(root)
    return replace(data, rows=[_row(row) for row in reversed(data.rows)], vocabulary=NOUNS)


def _row(row: TagMaskRow) -> TagMaskRow:
    words = tuple(dict.fromkeys(row.words))
    sample = row.sample if row.true else replace(row.sample, truth=())
    return replace(row, sample=sample, words=words, nouns=frozenset(words) & frozenset(WORDS))


def choose_thresholds(model: TTD, data: TagMaskSet) -> Thresholds:
    """On validation scenes: of min-max by CaptionIoU; of p by the mean of CaptionIoU over all captions and over those
    that name objects only; of the background by mIoU of the nouns and the background."""
    asked = TagMask(data, Options(), Options(), parts=("masks",), cuts=(*BY_NORM, *BY_P))
    found = measure_all(model, asked)
    objects = _objects_only(data)
    every, of_objects = (
        np.array([row["CaptionIoU"] for row in result.rows["cuts"]]).reshape(2, -1)
        for result in (found.result(), found.result(lambda record: record["id"] in objects))
    )
    confusion = background_confusion(model, painted("validation", len(data.rows)), THRESHOLDS)
    with_background = [class_scores(one.sum(0)).mean["mIoU"] for one in confusion]
    best = (every[0], every[1] + of_objects[1], with_background)
    return Thresholds(*(THRESHOLDS[int(np.argmax(values))] for values in best))


@lru_cache(maxsize=3)
def painted(split: str, count: int, most: int = 4) -> Sequence[Scene]:
    """The first scenes of a split with one to `most` objects, painted once a process."""
    world = Scenes(split, objects=(1, most))
    return [world[number] for number in range(count)]


def group_of(scene: int | str, count: int) -> int:
    """The group of one of `count` scenes, by its number or id."""
    return int(scene) * GROUPS // count


def background_confusion(model: TTD, scenes: Sequence[Scene], thresholds: Sequence[float]) -> np.ndarray:
    """As `TTD.segment` does: the noun with the highest p, or background (the last class) where p is below a threshold.

    Returns:
        int64 [K,G,N+1,N+2].
    """
    size = len(NOUNS) + 1
    found = np.zeros((len(thresholds), GROUPS, size, size + 1), np.int64)
    for number, scene in enumerate(scenes):
        maps = model.heatmaps(scene.image, NOUNS, scale="calibrated")
        highest, best = maps.max(0), maps.argmax(0)
        truth = np.array([len(NOUNS), *(_PLACE[noun] for noun in scene.nouns)])[scene.label_map]
        for place, threshold in enumerate(thresholds):
            labels = np.where(highest >= np.float32(threshold), best, len(NOUNS))
            found[place, group_of(number, len(scenes))] += confusion_matrix(labels, truth, size, ignored=-1)
    return found


def noun_hits(model: TTD, split: str, count: int) -> np.ndarray:
    """Whether the pooled embedding finds the noun among all N on scenes of one object, bool [S]."""
    nouns, scenes = model.encode_text(NOUNS), painted(split, count, 1)
    best = [int((nouns @ whole_image(model.encode(scene.image))).argmax()) for scene in scenes]
    return np.array([NOUNS[k] == scene.nouns[0] for k, scene in zip(best, scenes, strict=True)])


def retrieval_hits(model: TTD, data: TagMaskSet, among: int = AMONG) -> dict[str, np.ndarray]:
    """Whether each image finds its caption among so many by the pooled embedding, and each caption its image; what is
    left of the rows, fewer than these, is not asked: NaN [S]."""
    hits = {name: np.full(len(data.rows), np.nan) for name in ("image to text", "text to image")}
    for start in range(0, len(data.rows) - among + 1, among):
        part = slice(start, start + among)
        images = torch.stack([whole_image(model.encode(row.sample.image)) for row in data.rows[part]])
        cosines = images @ model.encode_text([row.caption for row in data.rows[part]]).T
        own = torch.arange(among, device=cosines.device)
        hits["image to text"][part] = (cosines.argmax(1) == own).cpu().numpy()
        hits["text to image"][part] = (cosines.argmax(0) == own).cpu().numpy()
    return hits


def _objects_only(data: TagMaskSet) -> set[str]:
    """The captions whose true words are without the background."""
    return {row.sample.id for row in data.rows if not row.true & set(BACKGROUNDS)}


class Evidence:
    """What the measures are taken from, scene by scene or group by group, so that scenes can be left out."""

    def __init__(self, model: TTD, data: TagMaskSet, thresholds: Thresholds) -> None:
        self._count, self._objects, self._thresholds = len(data.rows), _objects_only(data), thresholds
        asked = TagMask(data, Options(), Options(), scores=("s_pixel",), cuts=(*BY_NORM, *BY_P))
        self._captions = measure_all(model, asked)
        self._classes: dict[str, Measurements] = {}
        for title, known in (("mIoU, words there", True), ("mIoU, all words", False)):
            labels = open_benchmark("folder", data.root, Choices("default", known_classes=known), model.encoder)
            self._classes[title] = measure_all(model, labels)
        scenes, cuts = painted("test", self._count), (PAPER_THRESHOLD, thresholds.background)
        self._background = background_confusion(model, scenes, cuts)
        in_order = replace(data, rows=data.rows[::-1])
        self._hits = {**retrieval_hits(model, in_order), "noun accuracy": noun_hits(model, "test", self._count)}

    def numbers(self, without: set[int]) -> Numbers:
        """Every measure over the scenes that are in none of these groups."""

        def keep(record: Record) -> bool:
            return group_of(record["id"], self._count) not in without

        found = self._captions.result(keep)
        rows = {row["tagger"]: row for row in found.rows["tags"]}
        groups = [group for group in range(GROUPS) if group not in without]
        kept = np.array([group_of(number, self._count) in groups for number in range(self._count)])
        low, high = (class_scores(one[groups].sum(0)).mean["mIoU"] for one in self._background)
        return {
            **{name: rows["s_pixel"][name] for name in _TAGS},
            "F1, shuffled": rows[f"s_pixel{SHUFFLED}"]["F1"],
            **self._masks("min-max", BY_NORM, self._thresholds.norm, keep),
            **self._masks("p", BY_P, self._thresholds.p, keep),
            **{title: one.result(keep).numbers["mIoU"] for title, one in self._classes.items()},
            "mIoU, background": low,
            "mIoU, background, chosen": high,
            **{name: found.numbers[name] for name in ("AUC per image", "AUC per word")},
            **{name: mean_of_known(hits[kept].astype(float)) for name, hits in self._hits.items()},
        }

    def _masks(self, kind: str, cuts: Sequence[Cut], chosen: float, keep: Keep) -> Numbers:
        """CaptionIoU of all captions and of those that name objects only, at 0.5 and at the chosen threshold."""
        found = {}
        records = [record for record in self._captions.records if "cuts" in record and keep(record)]
        first = 0 if cuts is BY_NORM else len(BY_NORM)
        for title, threshold in ((kind, PAPER_THRESHOLD), (f"{kind}, chosen", chosen)):
            place = first + THRESHOLDS.index(threshold)
            counts = {record["id"]: MaskCounts(*record["cuts"][place]) for record in records}
            of_objects = [one.overlap for name, one in counts.items() if name in self._objects]
            pooled = np.sum([record["cuts"][place] for record in records], 0)
            found[f"CaptionIoU, {title}"] = caption_means([one.overlap for one in counts.values()])["CaptionIoU"]
            found[f"CaptionIoU of objects, {title}"] = caption_means(of_objects)["CaptionIoU"]
            found[f"CaptionIoU pooled, {title}"] = MaskCounts(*pooled.tolist()).overlap.iou
        return found

    def controls(self) -> Numbers:
        """What text or the whole image achieves."""
        every = self._captions.result()
        objects = self._captions.result(lambda record: record["id"] in self._objects)
        (nouns,) = (row for row in every.rows["tags"] if row["tagger"] == EVERY_NOUN)
        return {
            **{f"{EVERY_NOUN}: {name}": nouns[name] for name in _TAGS[:4]},
            "whole image: CaptionIoU": every.numbers["whole image IoU"],
            "whole image: CaptionIoU of objects": objects.numbers["whole image IoU"],
        }
