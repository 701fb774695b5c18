from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ttd
from tests.app.conftest import new_pool
from ttd.app.answers import AS_PROTOCOL, Question, answer, download, threshold_of
from ttd.app.models import SHOWN_SIDE, ModelPool
from ttd.encoders.clip import CLIPEncoder
from ttd.errors import InputError, ModelError
from ttd.inference.options import Options
from ttd.scenes import Scene


@pytest.fixture
def question(image: str, scene: Scene) -> Question:
    return Question(image, scene.caption)


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every batch of images that a CLIP encodes."""
    seen: list[int] = []
    encode = CLIPEncoder.encode_image

    def counted(self: CLIPEncoder, pixels: object) -> object:
        seen.append(1)
        return encode(self, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(CLIPEncoder, "encode_image", counted)
    return seen


def test_it_is_what_the_model_says(pool: ModelPool, question: Question, image: str, scene: Scene) -> None:
    found = answer(pool, question)
    model = ttd.load("mini")
    assert found.words is not None
    assert found.words.tagging == model.tag(image, scene.caption)
    assert found.words.tagging.selected == ["lion", "couch"]
    assert list(found.words.maps) == ["lion", "couch"]
    for heat, expected in zip(found.words.maps.values(), model.heatmaps(image, ["lion", "couch"]), strict=True):
        np.testing.assert_allclose(heat, expected, atol=1e-5)
    (view,) = found.captions
    np.testing.assert_array_equal(view.mask, model.caption_mask(image, scene.caption, threshold=0.5))
    assert found.segmentation is not None
    np.testing.assert_array_equal(found.segmentation.label_map, model.segment(image, ["lion", "couch"]).label_map)
    assert found.closed == len(model.encoder.vocabulary or ())


def test_a_image_is_encoded_once_for_all_that_concerns_no_view(
    adapter: Path, question: Question, encodings: list[int]
) -> None:
    pool = new_pool(adapter)
    assert answer(pool, question).fresh
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
        assert not answer(pool, replace(question, **change)).fresh  # type: ignore[arg-type]
        assert not answer(pool, replace(question, **change), only_cut=True).fresh  # type: ignore[arg-type]
    assert len(encodings) == 1
    assert answer(pool, replace(question, protocol="tcl-plain")).fresh
    both = len(encodings)
    assert answer(pool, replace(question, adapter="changed")).fresh
    assert len(encodings) == both + 1  # the base had seen it


def test_before_and_after_stand_side_by_side(pool: ModelPool, question: Question, adapter: Path) -> None:
    found = answer(pool, replace(question, adapter="changed"))
    before, after = found.captions
    assert (before.title, after.title) == ("before TTD: mini", "after TTD: changed")
    for view, changed in ((before, None), (after, adapter)):
        expected = ttd.load("mini", adapter=changed).caption_map(question.path or "", question.caption)
        np.testing.assert_allclose(view.heat, expected, atol=1e-5)
    assert not np.allclose(before.heat, after.heat, atol=0.05)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("refine", [AS_PROTOCOL, "pamr"])
def test_the_threshold_cuts(pool: ModelPool, question: Question, threshold: float, refine: str) -> None:
    asked = replace(question, threshold=threshold, refine=refine)
    found = answer(pool, asked, only_cut=True)
    assert found.words is None
    model = ttd.load("mini")
    refined = {} if refine == AS_PROTOCOL else {"refine": refine}
    expected = model.caption_mask(asked.path or "", asked.caption, threshold=threshold, options=Options(**refined))
    np.testing.assert_array_equal(found.captions[0].mask, expected)
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
    for one, other in zip(found + found[:2], alone + expected, strict=True):
        assert one.words is not None
        assert other.words is not None
        assert one.words.tagging == other.words.tagging
        np.testing.assert_allclose(one.captions[-1].heat, other.captions[-1].heat, atol=1e-6)


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
        ({"score": "magic"}, "no score"),
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
    with pytest.raises(ModelError):
        answer(pool, replace(question, adapter="empty"))
    assert answer(pool, question).words


def test_each_protocol_brings_its_threshold(pool: ModelPool) -> None:
    assert threshold_of(pool, "mini", "none", "default") == ttd.load("mini").encoder.background
    assert threshold_of(pool, "mini", "none", "tcl") == 0.4
