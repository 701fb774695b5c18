"""Records and prompts: what is written comes back, damage is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttd.annotate.masks import Prompts
from ttd.annotate.records import ACCEPTED, KEPT, REJECTED, Record
from ttd.errors import InputError

NUMBER = st.floats(-1e4, 1e4)
OUTLINE = st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=5).map(tuple)


@st.composite
def prompts(draw: st.DrawFn) -> Prompts:
    made = Prompts(threshold=draw(st.none() | st.floats(0, 1)))
    for _ in range(draw(st.integers(0, 3))):
        made = made.with_point(draw(NUMBER), draw(NUMBER), draw(st.booleans()))
        made = made.with_box(*(draw(NUMBER) for _ in range(4)))
        if draw(st.booleans()):
            made = made.with_outlines(tuple(draw(st.lists(OUTLINE, max_size=3))))
        made = made.with_dab(draw(NUMBER), draw(NUMBER), draw(NUMBER), draw(st.booleans()))
    return made


@given(prompts())
def test_prompts_come_back(made: Prompts) -> None:
    assert Prompts.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert all(box.left <= box.right and box.top <= box.bottom for box in made.boxes)


def test_prompts_of_a_version_without_outlines_are_read() -> None:
    made = Prompts().with_point(1, 2, True)
    content = made.to_dict()
    del content["outlines"]
    assert Prompts.from_dict(content) == made


@pytest.mark.parametrize(
    "change",
    [{"points": [[1, 2]]}, {"points": [[1, 2, 3]]}, {"boxes": [[1, 2, 3]]}, {"dabs": "x"}, {"threshold": "a"},
     {"outlines": 5}, {"outlines": [[[1, 2], [3, 4]]]}, {"outlines": [[[1, 2], [3, 4], [5]]]}, {"outlines": "abc"},
     {"outlines": [[[0, 0]] * 1201]}, {"empty": 5}, {"points": [[float("nan"), 0, 1]]}, {"points": None}],
)  # fmt: skip
def test_wrong_prompts_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="damaged or of another version"):
        Prompts.from_dict({**Prompts().to_dict(), **change})


def record(**changes: object) -> Record:
    mask = np.random.default_rng(0).random((7, 13)) > 0.5
    values: dict[str, object] = {
        "id": "a-1", "version": 3, "status": ACCEPTED, "shard": "s/1.tar", "key": "a.b", "caption_index": 0,
        "caption": "A dög's 1/2 🐶", "words": ("a", "dög", "'s", "1/2", "🐶"), "true": ("dög", "1/2"),
        "proposed": ("🐶",), "size": (7, 13), "masks": {"1/2": mask}, "mask_source": "own map", "image": "a-1.png",
        "prompts": {"dög": Prompts().with_point(1, 2, True)}, "verdict": KEPT,
    }  # fmt: skip
    return Record(**{**values, **changes})  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_records_come_back(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    before = record(masks={"dög": mask}, size=(height, width))
    after = Record.from_json(before.to_json(), "here")
    assert np.array_equal(after.masks["dög"], mask)
    assert after.masks["dög"].dtype == bool
    for name in Record.__dataclass_fields__:
        if name != "masks":
            assert getattr(after, name) == getattr(before, name), name


def test_finished_is_accepted_and_not_rejected() -> None:
    assert record().finished
    assert record(verdict=None).finished
    assert not record(verdict=REJECTED).finished
    assert not record(status="skipped", true=(), masks={}).finished


def test_damage_is_told_in_a_sentence() -> None:
    good = record().to_json()
    for cut in range(0, len(good), 97):
        with pytest.raises(InputError, match=r"here is damaged .*annotate the item again"):
            Record.from_json(good[:cut], "here")
    content = json.loads(good)
    for change in ({"masks": {"1/2": "AAAA"}}, {"size": [6, 13]}, {"words": "a"}, {"version": "1"}, {"verdict": "x"}):
        with pytest.raises(InputError, match="here is damaged"):
            Record.from_json(json.dumps({**content, **change}), "here")
    with pytest.raises(InputError, match="another version"):
        Record.from_json(json.dumps({**content, "format": 2}), "here")
    with pytest.raises(InputError, match="contradict each other"):
        Record.from_json(json.dumps({**content, "true": ["cat"]}), "here")
