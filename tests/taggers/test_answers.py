from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import LINEAR, growth
from ttd.taggers import Caption
from ttd.taggers.answers import LONGEST, choose_words, read_answer
from ttd.text.words import split_words


def caption(text: str) -> Caption:
    return Caption(text, tuple(word.text for word in split_words(text)))


@pytest.mark.parametrize(
    ("answer", "entries"),
    [
        ('["dog", "grass"]', ["dog", "grass"]),
        ('Sure! Here they are:\n```json\n["dog", "green grass"]\n```\nAsk me more.', ["dog", "green grass"]),
        ('{"objects": ["dog"], "colours": ["red"], "rest": []}', ["dog", "red"]),
        ('[{"word": "dog"}, {"word": "sky"}]', ["dog", "sky"]),
        ('{"dog": true, "a": false}', ["dog"]),
        ("['dog', 'woman\\'s hat']", ["dog", "woman's hat"]),
        ("[dog, grass]", ["dog", "grass"]),
        ('["dog", "gras', ["dog"]),
        ('["dog", "grass"', ["dog", "grass"]),
        ("- dog\n- grass: what grows\n* **sky** (blue)\n• cat – an animal", ["dog", "grass", "sky", "cat"]),
        ("The words:\n1. dog\n2) grass\n(3) sky", ["dog", "grass", "sky"]),
        ("dog, grass, and sky.", ["dog", "grass", "and sky"]),
        ("The visible words are: dog, grass", ["dog", "grass"]),
        ("Here are the words:\n\ndog, cat\n\nNote: I left out on.", ["dog", "cat"]),
        ("The words that can be seen are dog, cat and grass.", ["dog", "cat", "grass"]),
        ("“dog” and “grass” can be seen", ["dog", "grass"]),
        ("dog\ngrass\nblue sky", ["dog", "grass", "blue sky"]),
        ("```\ndog\ncat\n```", ["dog", "cat"]),
        ("dog", ["dog"]),
        ('<think>[1] ["x"] maybe</think>\n["dog"]', ["dog"]),
        ('I think ["x"]</think> dog, cat', ["dog", "cat"]),
        ("[]", []),
        ("{}", []),
        ('{"words": []}', []),
        ("None.", []),
        ("There is nothing? No visible objects in it.", None),
        ("No visible objects.", []),
        ("", None),
        ("   \n", None),
        ("<think>the dog, the cat", None),
        ("I'm sorry, but I cannot help with that request.", None),
        ("a dog runs across the green lawn of the house", None),
        ("[[[[[[", None),
    ],
)
def test_what_is_read_from_an_answer(answer: str, entries: list[str] | None) -> None:
    expected = ["dog", "grass", "sky"] if entries == ["dog", "grass", "and sky"] else entries
    assert read_answer(answer) == expected


words = st.lists(st.from_regex(r"[a-z]{2,10}", fullmatch=True), min_size=2, max_size=8).filter(
    lambda found: not {"none", "nothing", "empty", "and", "are", "is"} & set(found)
)


@given(words, st.sampled_from(["json", "fence", "python", "bullets", "numbers", "quotes", "lines"]))
def test_any_words_come_back_from_any_wrapping(found: list[str], how: str) -> None:
    text = {
        "json": json.dumps(found),
        "fence": f"Of course:\n```json\n{json.dumps(found, indent=1)}\n```",
        "python": str(found),
        "bullets": "Here:\n" + "\n".join(f"* {word}" for word in found),
        "numbers": "\n".join(f"{i}. {word}" for i, word in enumerate(found, 1)),
        "quotes": "I see " + " and ".join(f'"{word}"' for word in found) + " in it.",
        "lines": "\n".join(found),
    }[how]
    assert read_answer(text) == found


@given(st.text())
def test_nothing_that_a_model_says_is_an_error(text: str) -> None:
    entries = read_answer(text)
    if entries is not None:
        chosen = choose_words(entries, caption("a dog on the grass"))
        assert len(chosen.selected) == 5


@pytest.mark.parametrize("part", ["[", "<think>", "</think>", "'a", '{"a":', "words: ", "```", " ", "- ", "a, "])
def test_endless_answers_take_linear_time(part: str) -> None:
    assert growth(lambda length: read_answer(part * (length // len(part))), LONGEST) < LINEAR


def test_entries_become_the_captions_words() -> None:
    one = caption("A red Dog's ball and the other dog on grass , t-shirt")
    chosen = choose_words(["Dog", "the grass", "red ball", "cat", "black-and-white t-shirt", "a", "’s"], one)
    kept = [word for word, selected in zip(one.words, chosen.selected, strict=True) if selected]
    assert kept == ["A", "red", "Dog", "'s", "ball", "dog", "grass", "t-shirt"]
    assert chosen.others == ("cat", "black-and-white")
    assert chosen.words(one) == ["a", "red", "dog", "'s", "ball", "grass", "t-shirt", "cat", "black-and-white"]
    assert choose_words(["cat", "dog"], one, ignore_others=True).others == ()


def test_a_given_split_is_respected() -> None:
    tokens = Caption("#1 spider's web", ("#1", "spider's", "web"))
    assert choose_words(["#1", "spider's web"], tokens).selected == (True, True, True)
    assert choose_words(["spider"], tokens).others == ("spider",)
