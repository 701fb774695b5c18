"""Taggers that look at the text alone (Table 2a): the nouns that NLTK or spaCy finds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from ttd.errors import InputError, MissingExtra

Tagger = Callable[[Sequence[str]], list[bool]]
TAGGERS = ("nltk", "spacy")
SPACY_MODEL = "en_core_web_sm"


def open_tagger(name: str, spacy_model: str | None = None) -> Tagger:
    """A function that says of each word of a caption, given in order, whether it is a noun.

    Args:
        name: "nltk" (its own part-of-speech tagger, tags NN*) or "spacy" (NOUN and PROPN).
        spacy_model: name or folder of spaCy's model; None: its small English one.

    Raises:
        MissingExtra: the package is not installed.
        InputError: an unknown name, or the package's data is not there.
    """
    if name == "nltk":
        return _nltk()
    if name == "spacy":
        return _spacy(spacy_model or SPACY_MODEL)
    raise InputError(f"unknown tagger {name!r}: choose from {', '.join(TAGGERS)}")


def _nltk() -> Tagger:
    nltk = _package("nltk")
    try:
        nltk.pos_tag(["a", "dog"])
    except LookupError:
        raise InputError(
            "NLTK has no data for its tagger: run `python -m nltk.downloader averaged_perceptron_tagger_eng`"
        ) from None
    return lambda words: [tag.startswith("NN") for _, tag in nltk.pos_tag(list(words))]


def _spacy(model: str) -> Tagger:
    spacy = _package("spacy")
    try:
        pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])
    except (OSError, ValueError):
        raise InputError(f"spaCy has no model {model!r}: run `python -m spacy download {model}`") from None

    def nouns(words: Sequence[str]) -> list[bool]:
        # The caption's own split is kept: spaCy's tokens would not match its words.
        document = pipeline(spacy.tokens.Doc(pipeline.vocab, words=list(words)))
        return [token.pos_ in ("NOUN", "PROPN") for token in document]

    return nouns


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(f"{name} is not installed: run `pip install {name}`") from None
