"""One model measured on scenes: the numbers of the tables, and what their intervals need.

Each tower runs once over the scenes, and every measure is taken from these features by `ttd.evaluation.metrics`: a
hundred adapters are to be measured, and `ttd eval` asks the model anew for every question. A test holds the two
together.

Shapes: S scenes, T distinct words, V words of the world, N nouns of it, G groups of scenes, K thresholds, C embedding,
h x w patches, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures
from ttd.evaluation.metrics import (
    MaskCounts,
    TagCounts,
    auc,
    average_precision,
    class_scores,
    confusion_matrix,
    mean_of_known,
)
from ttd.maps import norm
from ttd.scenes.nouns import NOUNS, WORDS
from ttd.scenes.scene import Scene, Scenes
from ttd.scoring import s_pixel, select_largest_gap
from ttd.text.words import distinct, is_stop_word, split_words

GROUPS = 16
"""Scenes are left out of the measures in so many groups, for the intervals of `experiments.prove.rows`."""
PAPER_THRESHOLD = 0.5
CUTS = tuple(round(0.05 * k, 2) for k in range(1, 20))
AMONG = 256  # images and captions that retrieval chooses from
_PLACE = {word: place for place, word in enumerate(WORDS)}
_BATCH = 128
_NEVER = -2.0  # below every cosine: the score of a stop word

Numbers = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """What one model does on test scenes.

    Attributes:
        numbers: measures by name, in 0..1.
        without: each measure anew without each of the G groups of scenes.
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


@dataclass(frozen=True)
class Encoded:
    """Scenes and what a model makes of them.

    Attributes:
        scenes: S.
        features: of the S images.
        captions: embeddings [S,C].
        words: embeddings [V,C] of the world's words.
        vocabulary: the T distinct words of the captions, and their `scores` [S,T]: s_pixel.
    """

    scenes: Sequence[Scene]
    features: ImageFeatures
    captions: Tensor
    words: Tensor
    vocabulary: list[str]
    scores: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """The group of every scene, int [S]."""
        return np.arange(len(self.scenes)) * GROUPS // len(self.scenes)


@torch.inference_mode()
def measure(encoder: Encoder, test: int, validation: int) -> Measured:
    """Measures an encoder on `test` scenes; `validation` scenes choose the thresholds."""
    thresholds = choose_thresholds(encoder, validation)
    encoded = encode(encoder, painted("test", test))
    evidence = _Evidence(encoder, encoded, thresholds)
    evidence.hits["noun accuracy"] = noun_hits(encoder, test)
    groups, every = encoded.groups, np.ones(test, bool)
    chosen = {
        "threshold of min-max": thresholds.norm,
        "threshold of p": thresholds.p,
        "background's threshold": thresholds.background,
    }
    parts = [evidence.numbers(groups != group) for group in range(GROUPS)]
    numbers = evidence.numbers(every)
    without = {name: [part[name] for part in parts] for name in numbers}
    return Measured({**numbers, **chosen}, without, evidence.controls())


@torch.inference_mode()
def validate(encoder: Encoder, validation: int) -> Numbers:
    """The measures on validation scenes, by which a recipe or a last block's method may be chosen."""
    encoded = encode(encoder, painted("validation", validation))
    return _Evidence(encoder, encoded, Thresholds()).numbers(np.ones(validation, bool))


@torch.inference_mode()
def choose_thresholds(encoder: Encoder, validation: int) -> Thresholds:
    """On validation scenes: of min-max by CaptionIoU; of p by the mean of CaptionIoU over all captions and over those
    that name objects only; of the background by mIoU of the nouns and the background."""
    encoded = encode(encoder, painted("validation", validation))
    by_norm, by_p = caption_counts(encoder, encoded)
    true = np.array([bool(scene.true_words) for scene in encoded.scenes])
    objects = true & _objects_only(encoded.scenes)
    ious = np.array([_mean_iou(by_p[:, k], true) + _mean_iou(by_p[:, k], objects) for k in range(len(CUTS))])
    with_background = [class_scores(one.sum(0)).mean["mIoU"] for one in background_confusion(encoder, encoded, CUTS)]
    return Thresholds(
        norm=CUTS[int(np.argmax([_mean_iou(by_norm[:, k], true) for k in range(len(CUTS))]))],
        p=CUTS[int(np.argmax(ious))],
        background=CUTS[int(np.argmax(with_background))],
    )


@lru_cache(maxsize=3)
def painted(split: str, count: int, most: int = 4) -> Sequence[Scene]:
    """The first scenes of a split with one to `most` objects, painted once a process."""
    world = Scenes(split, objects=(1, most))
    return [world[number] for number in range(count)]


def encode(encoder: Encoder, scenes: Sequence[Scene]) -> Encoded:
    """Both towers, once."""
    parts = []
    for start in range(0, len(scenes), _BATCH):
        images = torch.from_numpy(np.stack([scene.image for scene in scenes[start : start + _BATCH]]))
        pixels = images.to(encoder.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(v, device=encoder.device).view(3, 1, 1) for v in (encoder.mean, encoder.std))
        parts.append(encoder.encode_image((pixels - mean) / std))
    features = ImageFeatures(
        dense=torch.cat([part.dense for part in parts]),
        pooled=torch.cat([part.pooled for part in parts]),
        size=parts[0].size,
        offset=parts[0].offset,
        padded=parts[0].padded,
        extras={name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras},
    )
    spoken = {word.text for scene in scenes for word in split_words(scene.caption)}
    vocabulary = [*WORDS, *sorted(spoken - set(WORDS))]
    embeddings = encoder.encode_text(vocabulary)
    scores = np.concatenate([s_pixel(encoder.similarity(part, embeddings)).cpu().numpy() for part in parts])
    captions = encoder.encode_text([scene.caption for scene in scenes])
    return Encoded(scenes, features, captions, embeddings[: len(WORDS)], vocabulary, scores)


def _similarity(encoder: Encoder, encoded: Encoded, number: int, text: Tensor) -> Tensor:
    """Cosines [K,h,w] of K texts on one scene."""
    return encoder.similarity(encoded.features.select(slice(number, number + 1)), text)[0].cpu()


def _pixels(maps: Tensor, scene: Scene) -> Tensor:
    """Maps [K,h,w] at a scene's size."""
    return interpolate(maps[None], scene.label_map.shape, mode="bilinear", align_corners=False)[0]


def tag_decisions(encoded: Encoded, shift: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words selected by s_pixel and the largest gap, as in Table 2b: stop words are never selected.

    Args:
        encoded: of the scenes.
        shift: each caption is shown the image of so many scenes later.

    Returns:
        Counts [S,4] of true and false positives, false and true negatives; average precision [S], NaN where nothing is
        true; [S,2] things that are named and absent, and how many of them were selected.
    """
    counts, precisions, absent = [], [], []
    place = {word: number for number, word in enumerate(encoded.vocabulary)}
    for number, scene in enumerate(encoded.scenes):
        row = distinct(word.text for word in split_words(scene.caption))[0]
        of_image = encoded.scores[(number + shift) % len(encoded.scenes)]
        scores = np.array([_NEVER if is_stop_word(word) else of_image[place[word]] for word in row])
        selected = scores > _NEVER
        selected[selected] = select_largest_gap(torch.from_numpy(scores[selected])).numpy()
        true = np.array([word in scene.true_words for word in row])
        tally = TagCounts()
        tally.add(selected, true)
        counts.append((tally.true_positive, tally.false_positive, tally.false_negative, tally.true_negative))
        precisions.append(average_precision(scores, true))
        chosen = {word for word, kept in zip(row, selected, strict=True) if kept}
        absent.append((len(scene.absent_words), len(scene.absent_words & chosen)))
    return np.array(counts), np.array(precisions), np.array(absent)


def caption_counts(encoder: Encoder, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """The caption's map cut at each of `CUTS` against the union mask, after `norm` and as p.

    Returns:
        Pixels [S,K,3] in both masks, predicted only, true only; for each of the two.
    """
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for number, scene in enumerate(encoded.scenes):
        sim = _similarity(encoder, encoded, number, encoded.captions[number : number + 1])
        truth = scene.union_mask
        for kind, values in zip(
            found, (norm(_pixels(sim, scene)), encoder.calibration(_pixels(sim, scene))), strict=True
        ):
            # How many cuts a pixel reaches; float32 against float32, as masks are cut.
            reached = np.searchsorted(np.array(CUTS, np.float32), values[0].numpy(), side="right")
            hit, wrong = (_at_least(reached[where]) for where in (truth, ~truth))
            kind.append(np.stack([hit, wrong, truth.sum() - hit], 1))
    return np.stack(found[0]), np.stack(found[1])


def _at_least(reached: np.ndarray) -> np.ndarray:
    """How many pixels reach each of the K cuts, from how many cuts each pixel reaches."""
    return np.asarray(np.bincount(reached, minlength=len(CUTS) + 1)[::-1].cumsum()[::-1][1:])


def confusions(encoder: Encoder, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel gets the word with the highest cosine: of those that are there, and of all; int64 [G,V,V+1] each."""
    size = len(WORDS)
    there, every = (np.zeros((GROUPS, size, size + 1), np.int64) for _ in range(2))
    for number, (scene, group) in enumerate(zip(encoded.scenes, encoded.groups, strict=True)):
        cosines = _pixels(_similarity(encoder, encoded, number, encoded.words), scene)
        own = np.array([_PLACE[label] for label in scene.labels])
        truth = own[scene.label_map]
        every[group] += confusion_matrix(cosines.argmax(0).numpy(), truth, size, ignored=-1)
        there[group] += confusion_matrix(own[cosines[own].argmax(0).numpy()], truth, size, ignored=-1)
    return there, every


def background_confusion(encoder: Encoder, encoded: Encoded, cuts: Sequence[float]) -> np.ndarray:
    """As `TTD.segment` does: the noun with the highest p, or background (the last class) where p is below a cut.

    Returns:
        int64 [K,G,N+1,N+2], for each of the cuts.
    """
    size = len(NOUNS) + 1
    found = np.zeros((len(cuts), GROUPS, size, size + 1), np.int64)
    for number, (scene, group) in enumerate(zip(encoded.scenes, encoded.groups, strict=True)):
        sim = _similarity(encoder, encoded, number, encoded.words[: len(NOUNS)])
        highest, best = encoder.calibration(_pixels(sim, scene)).max(0)
        truth = np.array([len(NOUNS), *(_PLACE[noun] for noun in scene.nouns)])[scene.label_map]
        for place, cut in enumerate(cuts):
            labels = torch.where(highest >= cut, best, len(NOUNS)).numpy()
            found[place, group] += confusion_matrix(labels, truth, size, ignored=-1)
    return found


def noun_hits(encoder: Encoder, count: int) -> np.ndarray:
    """Whether the pooled embedding finds the noun among all N on scenes of one object, bool [S]."""
    encoded = encode(encoder, painted("test", count, 1))
    best = (encoded.features.pooled @ encoded.words[: len(NOUNS)].T).argmax(1).tolist()
    return np.array([NOUNS[k] == scene.nouns[0] for k, scene in zip(best, encoded.scenes, strict=True)])


def retrieval_hits(encoded: Encoded) -> dict[str, np.ndarray]:
    """Whether each image finds its caption among `AMONG` by the pooled embedding, and each caption its image; the rest
    of the scenes, less than `AMONG`, is not asked: NaN [S]."""
    hits = {name: np.full(len(encoded.scenes), np.nan) for name in ("image to text", "text to image")}
    for start in range(0, len(encoded.scenes) - AMONG + 1, AMONG):
        part = slice(start, start + AMONG)
        cosines, right = (
            encoded.features.pooled[part] @ encoded.captions[part].T,
            torch.arange(AMONG, device=encoded.captions.device),
        )
        hits["image to text"][part] = (cosines.argmax(1) == right).cpu().numpy()
        hits["text to image"][part] = (cosines.argmax(0) == right).cpu().numpy()
    return hits


class _Evidence:
    """What the measures are taken from, scene by scene or group by group, so that scenes can be left out."""

    def __init__(self, encoder: Encoder, encoded: Encoded, thresholds: Thresholds) -> None:
        scenes = self.scenes = encoded.scenes
        self.groups = encoded.groups
        self.tags, self.precisions, self.absent = tag_decisions(encoded)
        self.shuffled, _, _ = tag_decisions(encoded, shift=1)
        self.by_norm, self.by_p = caption_counts(encoder, encoded)
        self.true = np.array([bool(scene.true_words) for scene in scenes])
        self.objects = self.true & _objects_only(scenes)
        self.thresholds = thresholds
        self.there, self.every = confusions(encoder, encoded)
        self.background = background_confusion(encoder, encoded, (PAPER_THRESHOLD, thresholds.background))
        self.present = np.array([[noun in scene.nouns for noun in NOUNS] for scene in scenes])
        self.scores = encoded.scores[:, : len(NOUNS)]
        self.auc = np.array(
            [auc(row[there], row[~there]) for row, there in zip(self.scores, self.present, strict=True)]
        )
        self.hits = retrieval_hits(encoded)

    def numbers(self, keep: np.ndarray) -> Numbers:
        """Every measure over the scenes of a bool mask [S] that takes or leaves whole groups."""
        groups = np.isin(np.arange(GROUPS), self.groups[keep])
        absent = self.absent[keep].sum(0)
        pairs = zip(self.scores[keep].T, self.present[keep].T, strict=True)
        return {
            **TagCounts(*self.tags[keep].sum(0).tolist()).scores,
            "mAP": mean_of_known(self.precisions[keep]),
            "absent selected": float(absent[1] / absent[0]),
            "F1, shuffled": TagCounts(*self.shuffled[keep].sum(0).tolist()).scores["F1"],
            **self._captions("min-max", self.by_norm, self.thresholds.norm, keep),
            **self._captions("p", self.by_p, self.thresholds.p, keep),
            "mIoU, words there": class_scores(self.there[groups].sum(0)).mean["mIoU"],
            "mIoU, all words": class_scores(self.every[groups].sum(0)).mean["mIoU"],
            "mIoU, background": class_scores(self.background[0, groups].sum(0)).mean["mIoU"],
            "mIoU, background, chosen": class_scores(self.background[1, groups].sum(0)).mean["mIoU"],
            "AUC per image": mean_of_known(self.auc[keep]),
            "AUC per word": mean_of_known(np.array([auc(row[there], row[~there]) for row, there in pairs])),
            **{name: mean_of_known(hits[keep].astype(float)) for name, hits in self.hits.items()},
        }

    def _captions(self, kind: str, counts: np.ndarray, chosen: float, keep: np.ndarray) -> Numbers:
        """CaptionIoU of all captions and of those that name objects only, at 0.5 and at the chosen threshold."""
        found = {}
        for title, threshold in ((kind, PAPER_THRESHOLD), (f"{kind}, chosen", chosen)):
            cut = counts[:, CUTS.index(threshold)]
            found[f"CaptionIoU, {title}"] = _mean_iou(cut, keep & self.true)
            found[f"CaptionIoU of objects, {title}"] = _mean_iou(cut, keep & self.objects)
            found[f"CaptionIoU pooled, {title}"] = MaskCounts(*cut[keep & self.true].sum(0).tolist()).overlap.iou
        return found

    def controls(self) -> Numbers:
        """What text or the whole image achieves."""
        tally = TagCounts()
        for scene in self.scenes:
            row = distinct(word.text for word in split_words(scene.caption))[0]
            tally.add(np.array([word in WORDS for word in row]), np.array([word in scene.true_words for word in row]))
        whole = np.array([scene.union_mask.mean() for scene in self.scenes])
        return {
            **{f"every noun: {name}": value for name, value in tally.scores.items()},
            "whole image: CaptionIoU": float(whole[self.true].mean()),
            "whole image: CaptionIoU of objects": float(whole[self.objects].mean()),
        }


def _objects_only(scenes: Sequence[Scene]) -> np.ndarray:
    """Whether a caption's true words are without the background, bool [S]."""
    return np.array([scene.background not in scene.true_words for scene in scenes])


def _mean_iou(counts: np.ndarray, keep: np.ndarray) -> float:
    """Mean over captions, of pixels [S,3] in both masks, predicted only, true only."""
    ious = [MaskCounts(*row).overlap.iou for row in counts[keep].tolist()]
    return float(np.mean(ious)) if ious else float("nan")
