from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttd.app.answers import CaptionResult, WordsResult
from ttd.app.html import (
    LARGE,
    _name_position,
    captions_html,
    escaped,
    ink,
    labelled_html,
    maps_html,
    notes_html,
    notice,
    segmentation_html,
    words_html,
)
from ttd.results import Segmentation, TaggedWord, Tagging
from ttd.viz.overlays import label_overlay, scale

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
NASTY = '<img src=x onerror="alert(1)">`${alert(2)}`&'


def tagging(caption: str, scores: dict[str, float], chosen: set[str]) -> Tagging:
    words = []
    for index, (word, score) in enumerate(scores.items()):
        start = caption.index(word)
        words.append(TaggedWord(word, index, start, start + len(word), score, word in chosen))
    return Tagging(caption, tuple(words))


class Page(HTMLParser):
    """The elements, their attributes, and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def with_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.elements if name in attrs.get("class", "").split()]


def images(html: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]


def words_of(found: Tagging, maps: dict[str, np.ndarray]) -> WordsResult:
    texts = [word.text for word in found.distinct()]
    return WordsResult(found, maps, np.zeros((len(texts), 3, 4), dtype=np.float32), texts)


def test_words_carry_their_score_as_colour_and_the_choice_as_a_mark() -> None:
    found = tagging("a dog, on grass", {"dog": 0.5, "grass": 0.1}, {"dog"})
    html = words_html(words_of(found, {}))
    page = Page(html)
    dog, grass = page.with_class("ttd-word")
    assert "ttd-chosen" in dog["class"]
    assert "ttd-chosen" not in grass["class"]
    assert "dog: chosen, score 0.500" in dog["title"]
    assert "grass: not chosen, score 0.100" in grass["title"]
    bright, dark = ("#" + bytes(scale()[index]).hex() for index in (255, 0))
    assert f"background:{bright}" in dog["style"]
    assert f"background:{dark}" in grass["style"]
    assert "".join(page.words).startswith(" a ✓ dog0.500, on grass0.100")
    assert "largest gap in score, 0.400" in html


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([NASTY, "dog", "'", '"><script>', "🦁", "\ud800", "\x00"]), min_size=1, max_size=6))
def test_nothing_a_visitor_writes_becomes_an_element(parts: list[str]) -> None:
    caption = " ".join(parts)
    words = tuple(TaggedWord(part, i, None, None, float(i), i % 2 == 0) for i, part in enumerate(parts))
    found = Tagging(caption, words, unknown=tuple(parts), truncated=tuple(parts))
    html = words_html(words_of(found, {})) + notes_html(found, 170) + notice(caption, "error")
    html += segmentation_html(Segmentation(np.zeros((6, 8), np.uint16), tuple(parts)), IMAGE)
    view = CaptionResult(caption, np.zeros((6, 8), np.float32), np.zeros((6, 8), np.bool_))
    html += captions_html([view], IMAGE, 0.5)
    page = Page(html)
    known = {"p", "span", "small", "div", "section", "h4", "figure", "figcaption", "b", "ul", "li", "img"}
    assert {name for name, _ in page.elements} <= known
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    html.encode("utf-8")


def test_one_heatmap_for_each_chosen_word() -> None:
    found = tagging("dog cat tree", {"dog": 0.5, "cat": 0.4, "tree": 0.1}, {"dog", "cat"})
    heat = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    html = maps_html(words_of(found, {"dog": heat, "cat": heat[::-1]}), IMAGE)
    page = Page(html)
    assert [attributes["alt"] for name, attributes in page.elements if name == "img"] == [
        "the image", "where dog is", "where cat is",
    ]  # fmt: skip
    assert "more chosen words" not in html
    assert "1 more chosen words" in maps_html(words_of(found, {"dog": heat}), IMAGE)


def test_before_and_after_have_their_titles_and_shares() -> None:
    heat = np.zeros((6, 8), dtype=np.float32)
    mask = np.zeros((6, 8), dtype=np.bool_)
    mask[:3] = True
    views = [CaptionResult("before", heat, mask), CaptionResult("after", heat, ~mask[::-1])]
    page = Page(captions_html(views, IMAGE, 0.25))
    assert [word for word in page.words if word in ("before", "after")] == ["before", "after"]
    assert page.words.count("50.0%") == 2
    assert page.words.count("mask at 0.25") == 2


@pytest.mark.parametrize("opacity", [0.0, 0.35, 1.0])
def test_the_two_layers_give_the_overlay_at_every_opacity(opacity: float) -> None:
    labels = np.zeros((60, 80), dtype=np.uint16)
    labels[:, 40:] = 1
    labels[30:, 60:] = 2
    names = ("background", "dog", "cat")
    lower, upper = images(labelled_html(IMAGE, labels, names, background=True))
    wanted = label_overlay(IMAGE, labels, names, background=True, opacity=opacity, legend=0, side=LARGE, enlarge=True)
    blended = Image.blend(lower, upper, opacity)
    difference = np.abs(np.asarray(blended, np.float32) - np.asarray(wanted, np.float32)).mean()
    assert difference < 6  # of 255: WebP is not exact


def test_the_legend_names_all_and_regions_carry_their_names() -> None:
    labels = np.zeros((60, 80), dtype=np.uint16)
    labels[5:15, 5:25] = 2
    html = labelled_html(IMAGE, labels, ("background", "dog", "cat"), background=True)
    page = Page(html)
    assert "not found: dog" in page.words
    assert {"cat", "4.2%", "background", "95.8%"} <= set(page.words)
    (sign,) = page.with_class("ttd-sign")
    left, top = (float(part) for part in re.findall(r":([\d.]+)%", sign["style"])[:2])
    assert labels[int(top / 100 * 60), int(left / 100 * 80)] == 2


def test_a_long_thin_ring_is_named_on_itself() -> None:
    labels = np.zeros((200, 300), dtype=np.uint16)
    labels[20:180, 20:280] = 1
    labels[35:165, 35:265] = 0
    across, down = _name_position(labels, 1)
    assert labels[int(down * 200), int(across * 300)] == 1


def test_nothing_to_segment_is_said() -> None:
    assert "No word was chosen" in segmentation_html(None, IMAGE)


def test_words_are_readable_on_every_colour() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in scale():
        dark, light = sorted(luminance(part) for part in (ink(colour), "#" + bytes(colour).hex()))
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def test_sentences_are_sentences() -> None:
    assert "The image is damaged." in notice("the image is damaged", "error")
    assert "The file." in notice("the file")
    assert "pic.png is damaged." in notice("pic.png is damaged")
    assert 'role="alert"' in notice("x", "error")
    assert escaped("a\nb") == "a b"
