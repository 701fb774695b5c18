"""An oracle that knows the truth scores perfectly, one that knows nothing does not; the parts by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.scenes.oracle import CHANNELS, Oracle
from tests.tolerance import assert_close
from ttd.encoders.features import ImageFeatures
from ttd.evaluation.metrics import auc
from ttd.scenes import NOUNS, Scenes
from ttd.scenes.measure import (
    EncodedScenes,
    caption_masks,
    encode_scenes,
    noun_accuracy,
    prepare_pixels,
    present_above_absent,
    retrieval,
    segmentation,
    tag_selection,
)
from ttd.scenes.nouns import WORDS
from ttd.text.words import split_words


@pytest.fixture(scope="module")
def world() -> tuple[Oracle, EncodedScenes]:
    scenes = [Scenes("test")[i] for i in range(40)]
    oracle = Oracle(scenes)
    return oracle, encode_scenes(oracle, scenes)


@pytest.mark.slow
def test_oracle_is_perfect(world: tuple[Oracle, EncodedScenes]) -> None:
    oracle, encoded = world
    assert segmentation(oracle, encoded) == {"all words": 1.0, "words that are there": 1.0}
    assert present_above_absent(oracle, encoded) == {"per image": 1.0, "per word": 1.0}
    # Where everything is named the map is flat, and a flat map scales to nothing.
    bounded = np.mean([not scene.union_mask.all() for scene in encoded.scenes if scene.true_words])
    rows = caption_masks(oracle, encoded)
    assert rows["all"]["CaptionIoU"] == pytest.approx(bounded)
    assert rows["objects only"]["CaptionIoU"] == pytest.approx(1)
    for row in rows.values():
        assert row["CaptionIoU"] + row["mFPR"] + row["mFNR"] == pytest.approx(1)
    row = tag_selection(oracle, encoded)["s_pixel"]
    assert row["mAP"] == 1
    assert row["absent selected"] == 0
    assert row["precision"] > 0.95  # a caption with nothing true has all its equal scores selected


def test_whole_image_iou_is_the_share_of_the_truth(world: tuple[Oracle, EncodedScenes]) -> None:
    oracle, encoded = world
    shares = [s.union_mask.mean() for s in encoded.scenes if s.true_words]
    assert caption_masks(oracle, encoded)["all"]["whole image IoU"] == pytest.approx(np.mean(shares))


def test_every_noun_and_shuffled_controls_by_brute_force(world: tuple[Oracle, EncodedScenes]) -> None:
    oracle, encoded = world
    hits = wrong = 0
    for scene in encoded.scenes:
        words = {w.text for w in split_words(scene.caption)} & set(WORDS)
        hits += len(words & scene.true_words)
        wrong += len(words - scene.true_words)
    row = tag_selection(oracle, encoded, scores=("s_pixel",))["every noun"]
    assert row["precision"] == pytest.approx(hits / (hits + wrong))
    assert row["recall"] == 1
    assert row["absent selected"] == 1
    shuffled = tag_selection(oracle, encoded, scores=("s_pixel",), shuffled=True)["s_pixel"]
    assert shuffled["mAP"] < 0.9


def test_blind_encoder_is_at_chance(world: tuple[Oracle, EncodedScenes]) -> None:
    oracle, encoded = world
    features = encoded.features
    blind = ImageFeatures(
        torch.rand_like(features.dense[..., :4, :4]), features.pooled, features.size, (0, 0), features.padded
    )
    guess = EncodedScenes(encoded.scenes, blind, encoded.words, encoded.captions)
    assert present_above_absent(oracle, guess)["per image"] == pytest.approx(0.5, abs=0.1)
    assert segmentation(oracle, guess)["all words"] < 0.05


def test_auc_per_image_by_brute_force(world: tuple[Oracle, EncodedScenes]) -> None:
    oracle, encoded = world
    noisy = ImageFeatures(
        torch.nn.functional.normalize(encoded.features.dense[..., ::16, ::16] + torch.rand(40, CHANNELS, 8, 8), dim=1),
        encoded.features.pooled, encoded.features.size, (0, 0), encoded.features.padded,
    )  # fmt: skip
    guess = EncodedScenes(encoded.scenes, noisy, encoded.words, encoded.captions)
    rows = []
    for i, scene in enumerate(encoded.scenes):
        best = {noun: float(noisy.dense[i, k].max()) for k, noun in enumerate(NOUNS)}
        there = np.array([best[n] for n in scene.nouns])
        rows.append(auc(there, np.array([v for n, v in best.items() if n not in scene.nouns])))
    assert present_above_absent(oracle, guess)["per image"] == pytest.approx(np.mean(rows))


def test_retrieval_and_noun_accuracy_with_pooled_truth() -> None:
    scenes = [Scenes("test")[i] for i in range(256)]
    singles = [Scenes("test", objects=(1, 1))[i] for i in range(8)]
    oracle = Oracle([*scenes, *singles], stride=32)
    found = retrieval(encode_scenes(oracle, scenes))
    assert found["image to text"] > 0.9  # equal truths are equal embeddings: the first wins
    assert found["text to image"] > 0.9
    assert noun_accuracy(oracle, "test", 0, 8) > 0.8


def test_pixels_are_normalised() -> None:
    scene = Scenes("test")[0]
    oracle = Oracle([scene])
    oracle.mean, oracle.std = (0.5, 0.25, 0.0), (0.5, 0.2, 2.0)
    expected = (scene.image / 255 - np.array(oracle.mean)) / np.array(oracle.std)
    assert_close(prepare_pixels(oracle, scene.image[None])[0].permute(1, 2, 0), expected, 3)
