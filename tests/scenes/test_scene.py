"""The world is the same everywhere, and what it says of itself is true."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ttd
from tests.growth import least_spent
from ttd.errors import InputError, TTDError
from ttd.scenes import BACKGROUNDS, CATEGORIES, NOUNS, Scenes
from ttd.scenes import drawing as atlas_room
from ttd.scenes.drawing import load_atlas
from ttd.text.words import split_words

PINNED = {
    ("train", 12345): "c55d72640c1270faeb4a55a511a6d2daa23753fcf95b30c150541f30e80cba05",
    ("validation", 7): "3aa65501a2a81d2f73ea35646e03a9ea2137436ee83ba76450a1e348971153d8",
    ("test", 0): "4083bc70a9aee680c45bc8a00595640ba88d8fefb82a6cf991c6f2b92d8dd5b2",
}


@pytest.mark.parametrize(("split", "index"), PINNED)
def test_a_scene_is_the_same_on_every_machine(split: str, index: int) -> None:
    scene = Scenes(split)[index]
    content = scene.image.tobytes() + scene.label_map.tobytes() + scene.caption.encode()
    assert hashlib.sha256(content).hexdigest() == PINNED[split, index]


def test_world_has_about_150_nouns_two_styles_and_eight_backgrounds() -> None:
    assert len(NOUNS) >= 150
    assert len(set(NOUNS) | set(BACKGROUNDS)) == len(NOUNS) + len(BACKGROUNDS)
    assert len(BACKGROUNDS) >= 8
    assert load_atlas().nouns == NOUNS
    assert len(load_atlas().styles) >= 2
    assert set(CATEGORIES.values()) == {"animal", "food", "plant", "vehicle", "thing", "building"}
    assert all(noun.isalpha() for noun in NOUNS)


def test_every_sprite_fills_its_box_and_alpha_bounds_colour() -> None:
    atlas = load_atlas()
    for sprites, side in ((atlas.large, 96), (atlas.small, 48)):
        assert (sprites[..., :3] <= sprites[..., 3:]).all()
        opaque = sprites[..., 3] > 8
        extent = np.maximum(opaque.any(2).sum(-1), opaque.any(3).sum(-1))
        assert (extent >= 0.9 * side).all()  # a hair-thin tail may fade
        assert not opaque[:, :, [0, -1]].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(["train", "validation", "test"]), st.integers(0, 5))
def test_truth_holds_together(index: int, split: str, seed: int) -> None:
    scene = Scenes(split, seed)[index]
    assert scene.image.shape == (128, 128, 3)
    assert scene.image.dtype == np.uint8
    assert scene.background in BACKGROUNDS
    assert 1 <= len(scene.nouns) <= 4
    assert len(set(scene.labels)) == len(scene.labels)
    assert scene.label_map.max() < len(scene.labels)
    assert scene.true_words <= set(scene.labels)
    assert not scene.absent_words & set(scene.labels)
    words = {word.text for word in split_words(scene.caption)}
    assert scene.true_words | scene.absent_words <= words
    named = words & (set(NOUNS) | set(BACKGROUNDS))
    assert named == scene.true_words | scene.absent_words
    union = np.zeros((128, 128), bool)
    for word in scene.true_words:
        union |= scene.mask(word)
    assert (union == scene.union_mask).all()
    assert set(scene.word_masks) == scene.true_words
    assert not scene.mask("submarine").any()


def test_objects_are_28_to_80_pixels_and_hardly_overlap() -> None:
    world = Scenes("train", objects=(1, 1))
    sides = []
    for i in range(80):
        rows, columns = np.nonzero(world[i].label_map)
        sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    assert min(sides) >= 24  # turned thin drawings and soft edges lose a little
    assert max(sides) <= 112
    several = Scenes("train", objects=(4, 4))
    visible = [(several[i].label_map == k).sum() for i in range(40) for k in range(1, len(several[i].labels))]
    assert min(visible) > 60


def test_splits_seeds_and_numbers_give_different_scenes() -> None:
    images = [Scenes(split, seed)[i].image.tobytes() for split in ("train", "test") for seed in (0, 1) for i in (0, 1)]
    assert len(set(images)) == len(images)


def test_captions_are_worded_anew_each_epoch_and_lie_in_a_quarter() -> None:
    world = Scenes("train")
    labels = ("grass", "dog", "cat", "car")
    texts = {world.caption(3, labels, epoch).text for epoch in range(30)}
    assert len(texts) > 25
    captions = [world.caption(i, labels) for i in range(2000)]
    assert np.mean([bool(c.absent) for c in captions]) == pytest.approx(0.25, abs=0.04)
    assert np.mean(["grass" in c.true for c in captions]) == pytest.approx(0.4, abs=0.05)
    assert all(len(c.absent) <= 1 for c in captions)


def test_nouns_and_styles_can_be_held_out() -> None:
    nouns = tuple(noun for noun in NOUNS if noun not in {"dog", "cat"})
    world = Scenes("train", nouns=nouns, styles=("noto",))
    seen = [world[i] for i in range(150)]
    assert not any({"dog", "cat"} & (set(s.nouns) | s.absent_words) for s in seen)
    first = Scenes("train", objects=(1, 1), styles=("noto",))[5]
    second = Scenes("train", objects=(1, 1), styles=("openmoji",))[5]
    assert first.nouns == second.nouns
    assert (first.image != second.image).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "dev"},
        {"nouns": ("submarine",)},
        {"nouns": ()},
        {"styles": ("oil",)},
        {"objects": (0, 2)},
        {"objects": (3, 2)},
        {"size": 16},
        {"size": 1000},
    ],
)
def test_wrong_worlds_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        Scenes(**wrong)


def test_damaged_atlas_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = atlas_room.parse_json
    monkeypatch.setattr(atlas_room, "parse_json", lambda text: {**real(text), "sha256": "0" * 64})
    with pytest.raises(TTDError, match="damaged"):
        load_atlas.__wrapped__()


def test_painting_does_not_hold_up_training() -> None:
    world = Scenes("train")
    encoder = ttd.load("mini").encoder
    pixels = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        encode = least_spent(lambda: encoder.encode_image(pixels), 5)
    assert least_spent(lambda: world.paint(1), 5) < encode  # a sixth of it; a training step is three times as much
