from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ttd
from tests.app.conftest import new_pool
from tests.tolerance import (
    MINI,
    PAMR,
    assert_close,
    assert_same_decisions,
    assert_same_tagging,
    calibrated_scale,
    float_tolerance,
    label_margin,
    largest_difference,
    map_scale,
)
from ttd.app.answers import AS_PROTOCOL, Question, answer, download, threshold_of
from ttd.app.models import SHOWN_SIDE, ModelPool, PageChoices
from ttd.encoders.clip import CLIPEncoder
from ttd.errors import InputError, ModelError
from ttd.inference.options import Options
from ttd.inference.resizing import resize
from ttd.model import TTD
from ttd.scenes import Scene


@pytest.fixture
def question(image: str, scene: Scene) -> Question:
    return Question(image, scene.caption)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every batch of images that a CLIP encodes."""
    seen: list[int] = []
    encode = CLIPEncoder.encode_windows

    def counted(self: CLIPEncoder, *arguments: Any) -> object:
        seen.append(1)
        return encode(self, *arguments)

    monkeypatch.setattr(CLIPEncoder, "encode_windows", counted)
    return seen


def caption_heat(model: TTD, image: str, caption: str, **options: object) -> tuple[np.ndarray, float]:
    """A caption's map, and by how much another computation of it may differ."""
    terms = MINI + (PAMR if options.get("refine") == "pamr" else 0)
    heat = model.caption_map(image, caption, options=Options(**options), scale="calibrated")
    return heat, float_tolerance(torch.float32, terms, scale=calibrated_scale(model.encoder))


def test_the_answer_equals_the_models(pool: ModelPool, question: Question, image: str, scene: Scene) -> None:
    found = answer(pool, question)
    model = ttd.load("mini")
    assert found.words is not None
    assert_same_tagging(found.words.tagging, model.tag(image, scene.caption), MINI)
    assert found.words.tagging.selected == ["lion", "couch"]
    assert found.words.selected == ["lion", "couch"]
    assert list(found.words.maps) == [word.text for word in found.words.tagging.ranked()]
    assert_close(found.words.sim, model.similarity(image, found.words.texts).numpy(), MINI)
    sim = model.similarity(image, list(found.words.maps))
    expected = model.heatmaps(image, list(found.words.maps))
    assert_close(np.stack(list(found.words.maps.values())), expected, MINI, scale=map_scale(sim))
    (view,) = found.captions
    mask = model.caption_mask(image, scene.caption, threshold=0.5)
    heat, rounding = caption_heat(model, image, scene.caption)
    assert_same_decisions(view.mask, mask, heat - 0.5, rounding)
    assert found.segmentation is not None
    labels = model.segment(image, ["lion", "couch"])
    large = resize(model.encoder.calibration(sim[:2]), labels.label_map.shape)
    rounding = float_tolerance(torch.float32, MINI, scale=calibrated_scale(model.encoder))
    margin = label_margin(large, labels.background)
    assert_same_decisions(found.segmentation.label_map, labels.label_map, margin, rounding)
    assert found.vocabulary_size == len(model.encoder.vocabulary or ())


def test_an_image_is_encoded_once_for_all_that_concerns_no_view(
    adapter: Path, question: Question, encodings: list[int]
) -> None:
    pool = new_pool(adapter)
    assert answer(pool, question).newly_encoded
    assert len(encodings) == 1
    changes = (
        {"threshold": 0.7},
        {"refine": "pamr"},
        {"caption": "a whale"},
        {"tags": "snow, lion"},
        {"score": "s_image"},
        {"stop_words": True},
        {"background": False},
    )
    for change in changes:
        assert not answer(pool, replace(question, **change)).newly_encoded  # type: ignore[arg-type]
        assert not answer(pool, replace(question, **change), threshold_only=True).newly_encoded  # type: ignore[arg-type]
    assert len(encodings) == 1
    assert answer(pool, replace(question, protocol="tcl-plain")).newly_encoded
    both = len(encodings)
    assert answer(pool, replace(question, adapter="changed")).newly_encoded
    assert len(encodings) == both + 1  # the base had seen it


def test_a_visitor_chooses_the_method(pool: ModelPool, question: Question) -> None:
    expected = answer(pool, question)
    by_gem = replace(question, method="gem")
    for asked in (by_gem, replace(by_gem, adapter="changed")):
        found = answer(pool, asked)
        assert found.newly_encoded
        assert not answer(pool, asked).newly_encoded
    heat, rounding = caption_heat(
        TTD(ttd.load("mini").encoder.with_method("gem")), question.path or "", question.caption
    )
    assert largest_difference(answer(pool, by_gem).captions[0].heat, heat) <= rounding
    assert largest_difference(answer(pool, question).captions[0].heat, expected.captions[0].heat) <= rounding
    assert largest_difference(heat, expected.captions[0].heat) > 0.05
    for name in ("proxyclip", "none"):
        with pytest.raises(InputError, match="choose from the list"):
            answer(pool, replace(question, method=name))


def test_before_and_after_stand_side_by_side(pool: ModelPool, question: Question, adapter: Path) -> None:
    found = answer(pool, replace(question, adapter="changed"))
    before, after = found.captions
    assert (before.title, after.title) == ("before: mini", "after: changed")
    for view, changed in ((before, None), (after, adapter)):
        model = ttd.load("mini", adapter=changed)
        expected, rounding = caption_heat(model, question.path or "", question.caption)
        assert largest_difference(view.heat, expected) <= rounding
    assert largest_difference(before.heat, after.heat) > 0.05


@pytest.mark.parametrize(
    ("name", "recipe"), [("mini+ttd", "the paper's recipe"), ("mini+negatives", "our own recipe, not the paper's")]
)
def test_the_packages_adapters_say_whose_recipe_they_are(question: Question, name: str, recipe: str) -> None:
    pool = ModelPool(PageChoices.of(["mini"], [name]), lambda model, adapter: ttd.load(model, adapter=adapter))
    found = answer(pool, replace(question, adapter=name))
    assert found.captions[-1].title == f"after: {name}, {recipe}"


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("refine", [AS_PROTOCOL, "pamr"])
def test_the_threshold_gives_mask_and_background(
    pool: ModelPool, question: Question, threshold: float, refine: str
) -> None:
    asked = replace(question, threshold=threshold, refine=refine)
    found = answer(pool, asked, threshold_only=True)
    assert found.words is None
    model = ttd.load("mini")
    refined = {} if refine == AS_PROTOCOL else {"refine": refine}
    expected = model.caption_mask(asked.path or "", asked.caption, threshold=threshold, options=Options(**refined))
    heat, rounding = caption_heat(model, asked.path or "", asked.caption, **refined)
    heat = np.where(threshold == 0, 1.0, heat)  # nothing lies below 0, however close to it
    assert_same_decisions(found.captions[0].mask, expected, heat - threshold, rounding)
    assert found.segmentation is not None
    assert found.segmentation.background == threshold


def test_two_visitors_at_once_get_what_one_gets(adapter: Path, question: Question) -> None:
    asked = [
        replace(question, caption=f"{question.caption} {word}", adapter=adapter)
        for word in ("whale", "apple", "snow", "dog")
        for adapter in ("none", "changed")
    ]
    expected = [answer(new_pool(adapter), one) for one in asked[:2]]
    pool = new_pool(adapter)
    with ThreadPoolExecutor(8) as visitors:
        found = list(visitors.map(lambda one: answer(pool, one), asked))
    alone = [answer(pool, one) for one in asked]
    _, rounding = caption_heat(ttd.load("mini"), question.path or "", question.caption)
    for one, other in zip(found + found[:2], alone + expected, strict=True):
        assert one.words is not None
        assert other.words is not None
        assert_same_tagging(one.words.tagging, other.words.tagging, MINI)
        assert largest_difference(one.captions[-1].heat, other.captions[-1].heat) <= rounding


def test_large_images_are_shown_small_and_downloaded_whole(pool: ModelPool, question: Question, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    assert question.path
    Image.open(question.path).resize((1500, 1200)).save(path)
    found = answer(pool, replace(question, path=str(path)))
    assert found.image.size == (SHOWN_SIDE, round(SHOWN_SIDE * 1200 / 1500))
    assert found.captions[0].heat.shape == found.image.size[::-1]
    taken = download(pool, replace(question, path=str(path), tags="lion, couch, LION, "))
    assert taken.segmentation is not None
    assert taken.segmentation.label_map.shape == (1200, 1500)
    assert taken.segmentation.names == ("background", "lion", "couch")
    assert str(tmp_path) not in str(taken.record)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"path": None}, "no image yet"),
        ({"caption": "  "}, "no caption yet"),
        ({"caption": "a" * 2001}, "longer than 2000"),
        ({"caption": "the of and"}, "no words are left"),
        ({"tags": ",".join(map(str, range(200)))}, "200 tags are too many"),
        ({"protocol": "none such"}, "unknown protocol"),
        ({"refine": "magic"}, "unknown refinement"),
        ({"score": "magic"}, "[Uu]nknown score"),
        ({"threshold": 7.0}, "between 0 and 1"),
        ({"threshold": float("nan")}, "between 0 and 1"),
        ({"model": "/etc"}, "not one of the models"),
    ],
)
def test_mistakes_are_sentences(pool: ModelPool, question: Question, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        answer(pool, replace(question, **change))  # type: ignore[arg-type]


def test_an_adapter_of_another_model_is_a_sentence(adapter: Path, question: Question) -> None:
    (adapter.parent / "empty").mkdir(exist_ok=True)
    pool = new_pool(adapter.parent / "empty")
    with pytest.raises(ModelError, match="empty is not an adapter"):
        answer(pool, replace(question, adapter="empty"))
    assert answer(pool, question).words.selected == ["lion", "couch"]


def test_each_protocol_brings_its_threshold(pool: ModelPool) -> None:
    assert threshold_of(pool, "mini", "none", "default") == ttd.load("mini").encoder.caption_threshold
    assert threshold_of(pool, "mini", "none", "tcl") == 0.4
