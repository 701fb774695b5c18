"""The text side of a model."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from tests.colour_encoder import ColourEncoder
from tests.tiny_models import tiny_clip
from tests.tolerance import assert_close
from ttd.errors import InputError
from ttd.text.embeddings import RepeatableTexts, Texts, check_texts, shortened

NONE = ("{}",)


def test_rows_follow_the_texts_and_each_distinct_one_is_encoded_once() -> None:
    encoder = ColourEncoder()
    texts = Texts(encoder)
    found = texts.encode(["red", "blue", "red"], NONE)
    assert_close(found, encoder.encode_text(["red", "blue", "red"]), 4)
    encoder.texts_seen.clear()
    assert_close(texts.encode(["green", "blue"], NONE), encoder.encode_text(["green", "blue"]), 4)
    assert encoder.texts_seen == ["green", "green", "blue"]  # the last two are the test's own question


def test_templates_are_kept_apart() -> None:
    texts = Texts(tiny_clip())
    bare = texts.encode(["dog"], NONE)
    assert (texts.encode(["dog"], ("a drawing of a {}.",)) - bare).abs().max() > 1e-3
    assert torch.equal(texts.encode(["dog"], NONE), bare)  # remembered


def test_the_texts_asked_for_longest_ago_are_forgotten() -> None:
    encoder = ColourEncoder()
    texts = Texts(encoder, kept=2)
    assert len(texts.encode(["red", "green", "blue"], NONE)) == 3  # more than are kept, in one question
    texts.encode(["green"], NONE)
    texts.encode(["red"], NONE)
    encoder.texts_seen.clear()
    texts.encode(["green", "red"], NONE)
    assert encoder.texts_seen == []
    texts.encode(["blue"], NONE)
    assert encoder.texts_seen == ["blue"]


def test_a_repeatable_question_is_one_batch_whatever_was_asked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ColourEncoder()
    batches: list[list[str]] = []
    inner = encoder.encode_text

    def counting(texts: list[str], *more: Any) -> torch.Tensor:
        batches.append(list(texts))
        return inner(texts, *more)

    monkeypatch.setattr(encoder, "encode_text", counting)
    texts = RepeatableTexts(encoder, kept=5)
    single = texts.encode(["red"], NONE)
    both = texts.encode(["blue", "red", "blue"], NONE)
    assert batches == [["red"], ["blue", "red"]]
    assert torch.equal(both, inner(["blue", "red", "blue"], NONE))
    assert torch.equal(texts.encode(["red"], NONE), single)
    texts.encode(["blue", "red"], ("a {}",))
    assert batches == [["red"], ["blue", "red"], ["blue", "red"]]
    texts.encode(["green"], NONE)  # the questions are six texts with it: the oldest are forgotten
    texts.encode(["yellow", "black"], NONE)
    texts.encode(["blue", "red"], NONE)
    assert batches[3:] == [["green"], ["yellow", "black"], ["blue", "red"]]
    with pytest.raises(InputError, match="empty"):
        texts.encode([" "], NONE)


def test_what_is_too_long_with_its_longest_template_is_named(caplog: pytest.LogCaptureFixture) -> None:
    texts = Texts(ColourEncoder())  # takes eight words, start and end included
    six, seven = "one two three four five six", "one two three four five six seven"
    assert texts.truncated([six, seven], NONE) == (seven,)
    assert texts.truncated([six, seven], ("{}", "a {}")) == (six, seven)
    with caplog.at_level(logging.WARNING):
        assert texts.check([six, seven], NONE) == (seven,)
    assert [record.getMessage() for record in caplog.records] == [
        f"{seven!r} is longer than the 8 tokens that the model takes: only its beginning counts"
    ]


def test_short_texts_are_not_tokenised_to_see_that_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ColourEncoder()
    monkeypatch.setattr(encoder, "tokenize", lambda texts: pytest.fail(f"tokenised {texts}"))
    assert Texts(encoder).truncated(["red", "blue"], NONE) == ()


def test_words_outside_a_closed_vocabulary() -> None:
    encoder = ColourEncoder()
    texts = Texts(encoder)
    assert texts.unknown(["a zebra"]) == ()
    encoder.vocabulary = frozenset({"red"})
    assert texts.unknown(["The red Zebra", "zebra, red okapi"]) == ("zebra", "okapi")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("dog", r"write \['dog'\]"),
        ([], "at least one"),
        (["dog", " \n"], "empty"),
        (["dog", None], "empty"),
        (["caf\udce9"], "not valid Unicode"),
    ],
)
def test_unusable_texts(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_texts(texts)
    with pytest.raises(InputError, match=message):
        Texts(ColourEncoder()).encode(texts, NONE)


def test_shortened() -> None:
    assert shortened("a" * 60) == "a" * 60
    assert shortened("a" * 61) == "a" * 57 + "..."
