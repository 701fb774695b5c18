"""What an encoder does on scenes, where the whole truth is known.

Shapes: S scenes, V words of the world, N words of a caption, h x w patches, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures
from ttd.evaluation.metrics import (
    Overlap,
    TagCounts,
    auc,
    average_precision,
    class_scores,
    confusion_matrix,
    overlap,
)
from ttd.maps import norm
from ttd.scenes.nouns import NOUNS, WORDS
from ttd.scenes.scene import Scene, Scenes
from ttd.scoring import (
    SCORES,
    default_rule,
    mean_feature,
    s_image,
    s_image_text,
    s_pixel,
    s_seg,
    s_text,
    scale_scores,
    select_tags,
)
from ttd.text.words import distinct, is_stop_word, split_words

RETRIEVAL_AMONG = 256
_PLACE = {word: place for place, word in enumerate(WORDS)}
_BATCH = 128
_NEVER = -2.0  # below every cosine: the score of a stop word


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes with what an encoder made of them: features, and embeddings of the world's words and the captions."""

    scenes: list[Scene]
    features: ImageFeatures
    words: Tensor
    captions: Tensor


def prepare_pixels(encoder: Encoder, images: np.ndarray) -> Tensor:
    """uint8 [S, H, W, 3] -> normalised pixels [S, 3, H, W]."""
    pixels = torch.from_numpy(images).to(encoder.device).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v, device=encoder.device).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    return (pixels - mean) / std


@torch.inference_mode()
def encode_scenes(encoder: Encoder, scenes: Sequence[Scene]) -> EncodedScenes:
    """Encodes the images at their own size, their captions, and every word of the world."""
    scenes = list(scenes)
    parts = []
    for start in range(0, len(scenes), _BATCH):
        images = np.stack([scene.image for scene in scenes[start : start + _BATCH]])
        parts.append(encoder.encode_image(prepare_pixels(encoder, images)))
    features = ImageFeatures(
        dense=torch.cat([part.dense for part in parts]),
        pooled=torch.cat([part.pooled for part in parts]),
        size=parts[0].size,
        offset=parts[0].offset,
        padded=parts[0].padded,
        extras={name: torch.cat([part.extras[name] for part in parts]) for name in parts[0].extras},
    )
    captions = encoder.encode_text([scene.caption for scene in scenes])
    return EncodedScenes(scenes, features, encoder.encode_text(WORDS), captions)


def retrieval(encoded: EncodedScenes) -> dict[str, float]:
    """Share of images that find their own caption among 256 by the pooled embedding, and of captions likewise."""
    hits = {"image to text": [], "text to image": []}  # type: dict[str, list[float]]
    for start in range(0, len(encoded.scenes) - RETRIEVAL_AMONG + 1, RETRIEVAL_AMONG):
        part = slice(start, start + RETRIEVAL_AMONG)
        cosines = encoded.features.pooled[part] @ encoded.captions[part].T
        right = torch.arange(RETRIEVAL_AMONG, device=cosines.device)
        hits["image to text"].append((cosines.argmax(1) == right).float().mean().item())
        hits["text to image"].append((cosines.argmax(0) == right).float().mean().item())
    return {name: _mean(values) for name, values in hits.items()}


@torch.inference_mode()
def noun_accuracy(encoder: Encoder, split: str, seed: int, count: int) -> float:
    """Zero-shot accuracy among all nouns on scenes of one object, by the pooled embedding."""
    single = Scenes(split, seed, objects=(1, 1))
    encoded = encode_scenes(encoder, [single[i] for i in range(count)])
    best = (encoded.features.pooled @ encoded.words[: len(NOUNS)].T).argmax(1).tolist()
    return _mean([float(NOUNS[k] == scene.nouns[0]) for k, scene in zip(best, encoded.scenes, strict=True)])


def present_above_absent(encoder: Encoder, encoded: EncodedScenes) -> dict[str, float]:
    """How often s_pixel of a noun that is there exceeds that of one that is not.

    "per image": over the nouns of the world within an image; "per word": over the images for one noun.
    """
    return {name: _mean(values) for name, values in present_aucs(encoder, encoded).items()}


def present_aucs(encoder: Encoder, encoded: EncodedScenes) -> dict[str, list[float]]:
    """What `present_above_absent` is the mean of: a value for each scene and for each noun; NaN: it says nothing."""
    scores = s_pixel(encoder.similarity(encoded.features, encoded.words[: len(NOUNS)])).cpu().numpy()
    present = np.array([[noun in scene.nouns for noun in NOUNS] for scene in encoded.scenes])
    tables = {"per image": (scores, present), "per word": (scores.T, present.T)}
    return {
        name: [auc(row[there], row[~there]) for row, there in zip(*both, strict=True)] for name, both in tables.items()
    }


def segmentation(encoder: Encoder, encoded: EncodedScenes) -> dict[str, float]:
    """Mean IoU over the whole set of two questions: which of all the words, and which of those that are there."""
    every = np.zeros((len(WORDS), len(WORDS) + 1), np.int64)
    there = np.zeros_like(every)
    for number in range(len(encoded.scenes)):
        every += confusion(encoder, encoded, number, range(len(WORDS)))
        there += confusion(encoder, encoded, number)
    return {
        "all words": class_scores(every).mean["mIoU"],
        "words that are there": class_scores(there).mean["mIoU"],
    }


def confusion(encoder: Encoder, encoded: EncodedScenes, number: int, asked: Sequence[int] | None = None) -> np.ndarray:
    """A scene's confusion matrix [V, V+1]: every pixel gets the best of the `asked` words; None: of those there."""
    scene = encoded.scenes[number]
    there = [_PLACE[label] for label in scene.labels]
    words = list(there if asked is None else asked)
    sim = encoder.similarity(encoded.features.select(slice(number, number + 1)), encoded.words[words])
    cosines = interpolate(sim, scene.label_map.shape, mode="bilinear", align_corners=False)[0]
    predicted = np.array(words)[cosines.argmax(0).cpu().numpy()]
    return confusion_matrix(predicted, np.array(there)[scene.label_map], len(WORDS), ignored=-1)


@dataclass(frozen=True)
class CaptionRow:
    """A caption's map, thresholded at several thresholds, against the union mask of its true words.

    Attributes:
        number: of the scene.
        objects_only: the caption does not name the background.
        overlaps: one for each threshold.
        whole: IoU of a mask that is the whole image.
    """

    number: int
    objects_only: bool
    overlaps: tuple[Overlap, ...]
    whole: float


def caption_rows(encoder: Encoder, encoded: EncodedScenes, thresholds: Sequence[float] = (0.5,)) -> list[CaptionRow]:
    """One row for each caption that has a true word."""
    rows = []
    for number, scene in enumerate(encoded.scenes):
        truth = scene.union_mask
        if not scene.true_words:
            continue
        one = slice(number, number + 1)
        sim = encoder.similarity(encoded.features.select(one), encoded.captions[one])
        found = norm(interpolate(sim, truth.shape, mode="bilinear", align_corners=False)[0, 0]).cpu().numpy()
        overlaps = tuple(overlap(found >= threshold, truth) for threshold in thresholds)
        rows.append(CaptionRow(number, scene.background not in scene.true_words, overlaps, float(truth.mean())))
    return rows


def caption_masks(encoder: Encoder, encoded: EncodedScenes, threshold: float = 0.5) -> dict[str, dict[str, float]]:
    """The caption's map above the threshold against the union mask: CaptionIoU, mFPR, mFNR over captions with a
    true word, and over those of them that name objects only; with the IoU of a mask that is the whole image."""
    rows = caption_rows(encoder, encoded, (threshold,))
    parts = {"all": rows, "objects only": [row for row in rows if row.objects_only]}
    return {kind: caption_means(part) for kind, part in parts.items()}


def caption_means(rows: Sequence[CaptionRow], threshold: int = 0) -> dict[str, float]:
    """CaptionIoU, mFPR, mFNR at the threshold number `threshold`, and the IoU of the whole image; NaN for no rows."""
    return {
        "CaptionIoU": _mean([row.overlaps[threshold].iou for row in rows]),
        "mFPR": _mean([row.overlaps[threshold].fpr for row in rows]),
        "mFNR": _mean([row.overlaps[threshold].fnr for row in rows]),
        "whole image IoU": _mean([row.whole for row in rows]),
    }


def tag_selection(
    encoder: Encoder, encoded: EncodedScenes, scores: Sequence[str] = SCORES, shuffled: bool = False
) -> dict[str, dict[str, float]]:
    """Words chosen from captions by each score: precision, recall, F1, accuracy, mAP (Table 2b), and two controls.

    "absent selected": share of the nouns named but not there that were selected. "every noun" is the row that
    selects all nouns of the world without an image. `shuffled` shows each caption another scene's image: what
    the text alone achieves. Stop words count as words that are never selected.
    """
    counts = {score: _TagTally() for score in (*scores, "every noun")}
    texts = [distinct(word.text for word in split_words(scene.caption))[0] for scene in encoded.scenes]
    vocabulary = sorted({text for row in texts for text in row})
    place = {text: i for i, text in enumerate(vocabulary)}
    with torch.inference_mode():
        embeddings = encoder.encode_text(vocabulary)
    for i, (scene, row) in enumerate(zip(encoded.scenes, texts, strict=True)):
        candidates = [text for text in row if not is_stop_word(text)]
        image = (i + 1) % len(encoded.scenes) if shuffled else i
        features = encoded.features.select(slice(image, image + 1))
        words = embeddings[[place[text] for text in candidates]]
        raw = _scores(encoder, features, words, encoded.captions[i], scores)
        for score in scores:
            # The sum's parts are scaled already: it is thresholded as it is.
            rule = "threshold" if score == "s_image+s_text" else default_rule(score)
            chosen = select_tags(raw[score], rule, logit_scale=encoder.logit_scale).tolist()
            counts[score].add(scene, row, candidates, raw[score].tolist(), chosen)
        every = [text in WORDS for text in candidates]
        counts["every noun"].add(scene, row, candidates, [float(e) for e in every], every)
    return {name: tally.result for name, tally in counts.items()}


def _scores(
    encoder: Encoder, features: ImageFeatures, words: Tensor, caption: Tensor, wanted: Sequence[str]
) -> dict[str, Tensor]:
    """Every wanted score of a caption's words, each [N]; sums are of softmax shares."""
    sim = encoder.similarity(features, words)
    of_image = s_image(mean_feature(features.dense), words[None])[0]
    of_text = s_text(caption, words)
    made = {
        "s_pixel": s_pixel(sim)[0],
        "s_image": of_image,
        "s_text": of_text,
        "s_image+s_text": s_image_text(
            scale_scores(of_image, "softmax", encoder.logit_scale),
            scale_scores(of_text, "softmax", encoder.logit_scale),
        ),
        "s_seg": s_seg(sim)[0],
    }
    return {name: made[name] for name in wanted}


class _TagTally:
    """Decisions and rankings of one tagger over all captions."""

    def __init__(self) -> None:
        self.counts, self.precisions = TagCounts(), list[float]()
        self.absent, self.absent_selected = 0, 0

    def add(
        self, scene: Scene, words: list[str], candidates: list[str], scores: list[float], chosen: list[bool]
    ) -> None:
        scored = dict(zip(candidates, scores, strict=True))
        selected = {text for text, kept in zip(candidates, chosen, strict=True) if kept}
        true = np.array([text in scene.true_words for text in words])
        self.counts.add(np.array([text in selected for text in words]), true)
        if true.any():
            self.precisions.append(average_precision(np.array([scored.get(text, _NEVER) for text in words]), true))
        self.absent += len(scene.absent_words)
        self.absent_selected += len(scene.absent_words & selected)

    @property
    def result(self) -> dict[str, float]:
        """The row of the table."""
        share = self.absent_selected / self.absent if self.absent else float("nan")
        return {**self.counts.scores, "mAP": _mean(self.precisions), "absent selected": share}


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if len(values) else float("nan")
