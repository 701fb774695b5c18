"""What the Annotate tab does with what a browser sends, and its HTML; without browser and gradio."""

from __future__ import annotations

import base64
import io
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.annotate.samples import SIZE, open_annotations, write_folder
from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.masks import Box, Point
from ttd.app.annotate.actions import ALL_DONE, Actions, Tab
from ttd.app.annotate.view import TabView
from ttd.evaluation.datasets.tagmask import read_tagmask


@pytest.fixture
def annotations(tmp_path: Path) -> AnnotationSet:
    return open_annotations(tmp_path / "data", tmp_path / "set")


class Person:
    """A tab and its clicks."""

    def __init__(self, annotations: AnnotationSet, name: str = "tab") -> None:
        self.annotations, self.actions, self.tab = annotations, Actions(annotations), Tab(name)
        self.view = TabView(annotations, self.tab)
        self.do("open")

    def do(self, name: str, **values: Any) -> str:
        self.actions.apply(self.tab, {"do": name, **values})
        return self.tab.message

    @property
    def html(self) -> str:
        return self.view.html()


@pytest.fixture
def person(annotations: AnnotationSet) -> Person:
    return Person(annotations)


def test_from_the_first_item_to_the_second_pass(person: Person, annotations: AnnotationSet, tmp_path: Path) -> None:
    assert person.tab.message == ""
    person.do("press", word="wall")
    person.do("point", x=3.0, y=4.0, inside=True)
    assert person.do("accept") == "Item 1 is saved."
    assert person.tab.opened is not None
    assert person.tab.opened.item.number == 1
    assert read_tagmask(tmp_path / "set").rows[0].true == {"red", "wall", "green"}
    assert person.do("skip") == "Item 2 is skipped."
    assert person.do("accept") == f"Item 3 is saved. {ALL_DONE}"
    assert "Nothing is left" in person.html
    assert person.do("previous") == ""
    assert person.tab.opened is not None
    assert person.tab.opened.item.number == 2
    assert person.do("review") == ""
    first = person.tab.record
    assert first is not None
    assert first.id in person.html
    assert "is kept" in person.do("keep")
    assert "P goes back" in person.do("reject")
    assert person.do("back") == "This one is rejected so far."
    person.do("edit")
    assert not person.tab.reviewing
    person.do("accept")
    assert annotations.progress().rejected == 0


def test_an_image_without_a_caption_is_given_one(tmp_path: Path) -> None:
    (write_folder(tmp_path / "photos", 1) / "captions.jsonl").unlink()
    person = Person(open_annotations(tmp_path / "photos", tmp_path / "set"))
    assert "type what it shows" in person.html
    assert "no caption yet" in person.do("accept")
    assert person.tab.failed
    person.do("caption", text="<b>red</b> and green")
    assert not person.tab.failed
    assert 'value="&lt;b&gt;red&lt;/b&gt; and green"' in person.html
    assert 'data-word="green"' in person.html
    person.do("caption", text=None)
    assert person.tab.failed
    assert "is saved" in person.do("accept")
    assert [row.true for row in read_tagmask(tmp_path / "set").rows] == [{"red", "green"}]


def test_undo_and_walking_to_the_ends(person: Person) -> None:
    assert "nothing to undo" in person.do("undo")
    assert person.tab.failed
    assert "first item" in person.do("previous")
    for number in (1, 2):
        assert person.do("next") == ""
        assert person.tab.opened is not None
        assert person.tab.opened.item.number == number
    assert "last item" in person.do("next")
    person.do("box", x=1, y=1, x2=9, y2=9)
    assert person.tab.opened.prompts.boxes == (Box(1, 1, 9, 9),)
    person.do("undo")
    assert not person.tab.opened.prompts.boxes


def test_undo_takes_back_decisions_one_by_one(person: Person, annotations: AnnotationSet, tmp_path: Path) -> None:
    person.do("point", x=3.0, y=4.0, inside=True)
    person.do("accept")
    first = read_tagmask(tmp_path / "set").rows
    person.do("skip")
    assert person.do("undo") == "The decision about item 2 is taken back."
    assert annotations.progress().skipped == 0
    assert person.do("undo") == "The decision about item 1 is taken back."
    assert person.tab.opened is not None
    assert person.tab.opened.item.number == 0
    assert person.tab.opened.prompts.points == (Point(3.0, 4.0, True),)
    assert annotations.progress().accepted == 0
    assert (tmp_path / "set" / "tags.jsonl").read_text() == ""
    assert list((tmp_path / "set" / "masks").rglob("*.png")) == []
    assert "nothing to undo" in person.do("undo")
    person.do("accept")
    again = read_tagmask(tmp_path / "set").rows
    assert [(row.true, row.mask().tolist()) for row in again] == [(row.true, row.mask().tolist()) for row in first]
    # Of an item that was decided before, that decision comes back.
    person.do("previous")
    person.do("drop")
    person.do("accept")
    person.do("undo")
    assert [row.true for row in read_tagmask(tmp_path / "set").rows] == [row.true for row in first]


def test_undo_takes_back_a_verdict_and_a_typed_caption(
    person: Person, annotations: AnnotationSet, tmp_path: Path
) -> None:
    person.do("accept")
    person.do("review")
    person.do("reject")
    assert "no verdict any more" in person.do("undo")
    assert annotations.progress().rejected == 0
    assert len(read_tagmask(tmp_path / "set").rows) == 1
    (write_folder(tmp_path / "photos", 1) / "captions.jsonl").unlink()
    other = Person(open_annotations(tmp_path / "photos", tmp_path / "other"))
    other.do("caption", text="red and green")
    other.do("caption", text="blue")
    assert other.do("undo") == "The caption before is back."
    assert 'value="red and green"' in other.html


def test_a_decision_that_another_tab_replaced_is_not_taken_back(person: Person, annotations: AnnotationSet) -> None:
    person.do("accept")
    other = Person(annotations, "other")
    other.do("open", item=0)
    other.do("drop")
    other.do("accept")
    assert "changed in another tab" in person.do("undo")
    assert annotations.progress().accepted == 1


@pytest.mark.parametrize(
    "given",
    [{}, {"do": "x"}, {"do": None}, {"do": ["open"]}, {"do": "press"}, {"do": "press", "word": 5},
     {"do": "press", "word": "<b>"}, {"do": "point", "x": "1", "y": 2}, {"do": "point", "x": float("nan"), "y": 2},
     {"do": "point", "y": 2}, {"do": "box", "x": 1, "y": 2, "x2": 3}, {"do": "stroke", "spots": [], "radius": 3},
     {"do": "stroke", "spots": [[1, 2]] * 2001, "radius": 3}, {"do": "stroke", "spots": [[1]], "radius": 3},
     {"do": "stroke", "spots": "ab", "radius": 3}, {"do": "stroke", "spots": [[1, 2]], "radius": None},
     {"do": "outline", "outlines": [[[1, 2], [3, 4]]]}, {"do": "outline", "outlines": [[[1, 2], [3, 4], [5, "6"]]]},
     {"do": "outline", "outlines": [[[0, 0]] * 1201]}, {"do": "outline", "outlines": [[[1, 2], [3, 10**400], [5, 6]]]},
     {"do": "outline", "outlines": 7}, {"do": "threshold", "value": 2}, {"do": "threshold", "value": 10**400},
     {"do": "choose", "index": 99}, {"do": "keep"}, {"do": "back"}, {"do": "edit"}],
)  # fmt: skip
def test_what_no_page_would_send_is_one_sentence(
    person: Person, given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    before = person.tab.opened
    assert before is not None
    steps = before.steps
    with caplog.at_level(logging.ERROR):
        person.actions.apply(person.tab, given)
    assert person.tab.failed
    assert "\n" not in person.tab.message
    assert "internal error" not in person.tab.message, "the page itself failed"
    assert caplog.records == []
    assert before.steps == steps
    assert "<b>" not in person.html.split('class="ann-message"')[1].split("</div>")[0]


def test_far_away_clicks_are_held_within_the_image(person: Person) -> None:
    person.do("point", x=1e9, y=-1e9)
    person.do("stroke", spots=[[1e12, 5]], radius=1e12)
    assert person.tab.opened is not None
    point, dab = person.tab.opened.prompts.points[0], person.tab.opened.prompts.dabs[0]
    assert (point.x, point.y) == (SIZE[1] - 1, 0)
    assert dab.radius <= max(SIZE)
    person.do("outline", outlines=[[[-1e9, -1e9], [1e300, -1], [1e9, 1e9], [-1, 1e9]]])
    assert person.tab.opened.prompts.outlines == (((-0.5, -0.5), (47.5, -0.5), (47.5, 31.5), (-0.5, 31.5)),)
    assert person.tab.opened.masks()["red"].all()


def test_a_disk_error_and_a_mistake_of_ours_are_sentences(
    person: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def wrong(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(person.annotations, "accept", full)
    assert person.do("accept") == "nothing was saved (No space left on device): make room and try again"
    monkeypatch.setattr(person.annotations, "accept", wrong)
    assert "see the log" in person.do("accept")
    assert any(record.exc_info for record in caplog.records)
    monkeypatch.undo()
    assert person.do("accept") == "Item 1 is saved."


def test_two_tabs_on_one_item(person: Person, annotations: AnnotationSet, tmp_path: Path) -> None:
    other = Person(annotations, "other")
    assert other.tab.opened is not None
    assert other.tab.opened.item.number == 1
    assert "also open in another tab" in other.do("previous")
    person.do("accept")
    said = other.do("accept")
    assert "changed in another tab" in said
    assert said.endswith("A accepts yours, N leaves the other")
    other.do("drop")
    assert "Item 1 is saved" in other.do("accept")
    assert read_tagmask(tmp_path / "set").rows[0].true == {"green"}


def test_a_page_that_outlived_the_server_comes_back_to_its_item(
    person: Person, annotations: AnnotationSet, tmp_path: Path
) -> None:
    person.do("next")
    person.do("press", word="wall")
    annotations.release("tab")
    again = open_annotations(tmp_path / "data", tmp_path / "set")
    actions, tab = Actions(again), Tab("tab")
    actions.apply(tab, {"do": "open", "item": 1})
    assert tab.opened is not None
    assert tab.opened.item.number == 1
    assert "wall" in tab.opened.true
    actions.apply(tab, {"do": "open", "item": 99})
    assert tab.opened.item.number == 0


class Checked(HTMLParser):
    """Every element is closed, and none came from a caption."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: dict[str, Image.Image] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "iframe", "b2")
        assert not any(name.startswith("on") for name in given)
        if tag == "img":
            source = given["src"] or ""
            data = base64.b64decode(source.split(",", 1)[1])
            self.images[given["class"] or ""] = Image.open(io.BytesIO(data))
        if tag not in ("img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_masks_and_escapes_captions(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 1)
    caption = 'a red <script>alert(1)</script> \\"onclick=x green & ${7*7} `wall`'
    (data / "captions.jsonl").write_text('{"image": "000.png", "caption": "' + caption + '"}')
    person = Person(open_annotations(data, tmp_path / "set"))
    person.do("press", word="red")
    person.do("press", word="red")
    person.do("point", x=5, y=6)
    person.do("box", x=0, y=0, x2=10, y2=20)
    checked = Checked()
    checked.feed(person.html)
    assert checked.open == []
    layer = checked.images["ann-layer"].convert("RGBA")
    # 600 pixels wide, so that the edges of a small image's masks stay thin.
    assert layer.size == (600, 400)
    alpha = np.asarray(layer)[..., 3]
    opened = person.tab.opened
    assert opened is not None
    union = np.any(list(opened.masks().values()), axis=0)
    centres = alpha[6::12, 6::12][: SIZE[0], : SIZE[1]]
    rows, columns = ((np.arange(n) * 12 + 6) * SIZE[i] // (400, 600)[i] for i, n in enumerate(centres.shape))
    assert np.array_equal(centres > 0, union[rows][:, columns])
    assert set(np.unique(alpha)) <= {0, 80, 120, 255}
    assert re.search(r'class="ann-point ann-in" style="left:11\.46%;top:20\.31%"', person.html)
    assert 'class="ann-box" style="left:0.00%;top:0.00%;width:22.92%;height:65.62%"' in person.html
    person.do("accept")
    person.do("review")
    checked = Checked()
    checked.feed(person.html)
    assert checked.open == []


def test_colours_stay_with_their_words(person: Person) -> None:
    from ttd.app.annotate.view import word_colours

    words = ["a", "red", "wall", "beside", "green", "door"]
    colours = word_colours(words)
    assert len(set(colours.values())) == 6
    # Okabe and Ito's strongest go to the words that are likely to be chosen.
    assert [colours[word] for word in ("red", "wall")] == ["#e69f00", "#56b4e9"]
    before = re.findall(r"--word:(#\w+)", person.html)
    person.do("press", word="wall")
    assert re.findall(r"--word:(#\w+)", person.html) == before
