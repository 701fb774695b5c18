"""The records that a user gets."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ttd import Segmentation, TaggedWord, Tagging


@pytest.fixture
def tagging() -> Tagging:
    """Of "Dog on the grass, dog in snow"."""
    words = [
        TaggedWord("Dog", 0, 0, 3, 0.9, True),
        TaggedWord("grass", 3, 11, 16, 0.95, True),
        TaggedWord("dog", 5, 18, 21, 0.9, True),
        TaggedWord("snow", 7, 25, 29, -0.1, False),
    ]
    return Tagging("Dog on the grass, dog in snow", tuple(words))


def test_selected_distinct_and_ranked(tagging: Tagging) -> None:
    assert tagging.selected == ["Dog", "grass"]
    assert [word.text for word in tagging.distinct()] == ["Dog", "grass", "snow"]
    assert [word.text for word in tagging.ranked()] == ["grass", "Dog", "snow"]


def test_a_tagging_prints_as_a_table(tagging: Tagging) -> None:
    assert str(tagging) == "* grass  0.9500\n* Dog    0.9000\n  snow  -0.1000"


def test_a_tagging_as_json(tagging: Tagging) -> None:
    record = json.loads(json.dumps(tagging.to_dict()))
    assert record == {
        "caption": "Dog on the grass, dog in snow",
        "selected": ["Dog", "grass"],
        "words": record["words"],
        "score": "s_pixel",
        "selection": "gap",
        "threshold": None,
        "truncated": [],
        "unknown": [],
    }
    assert record["words"][3] == {
        "text": "snow", "index": 7, "start": 25, "end": 29, "score": -0.1, "selected": False,
    }  # fmt: skip


def test_shares_of_a_segmentation() -> None:
    labels = np.array([[0, 1, 1], [2, 3, 1]], np.uint16)
    found = Segmentation(labels, ("background", "dog", "sky", "dog"), 0.5)
    assert found.shares() == {"background": 1 / 6, "dog": pytest.approx(4 / 6), "sky": 1 / 6}
    assert str(found).splitlines() == ["background  16.7%", "dog         66.7%", "sky         16.7%"]
    record = json.loads(json.dumps(found.to_dict()))
    assert (record["height"], record["width"], record["background"]) == (2, 3, 0.5)
    assert record["names"] == ["background", "dog", "sky", "dog"]
    assert "label_map" not in record


def test_records_cannot_be_changed(tagging: Tagging) -> None:
    with pytest.raises(AttributeError):
        tagging.caption = "another"  # type: ignore[misc]
