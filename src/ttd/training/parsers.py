"""Noun parsers, the paper's baseline for choosing words (Table 8): spaCy or NLTK, where a user has them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ttd.errors import MissingExtra

# A caption -> its nouns, lower case.
NounParser = Callable[[str], set[str]]

SPACY_MODEL = "en_core_web_sm"


def noun_parser(name: str) -> NounParser:
    """The parser of that name, "spacy" or "nltk".

    Raises:
        MissingExtra: the library or its English data is not installed.
    """
    return _spacy() if name == "spacy" else _nltk()


def _spacy() -> NounParser:
    try:
        language: Any = import_module("spacy").load(SPACY_MODEL, disable=["parser", "ner", "lemmatizer"])
    except ImportError as error:
        raise MissingExtra("the noun parser needs spaCy: pip install spacy") from error
    except OSError as error:
        raise MissingExtra(f"spaCy's English model is missing: python -m spacy download {SPACY_MODEL}") from error

    def nouns(caption: str) -> set[str]:
        return {token.text.lower() for token in language(caption) if token.pos_ in ("NOUN", "PROPN")}

    return nouns


def _nltk() -> NounParser:
    try:
        nltk: Any = import_module("nltk")
    except ImportError as error:
        raise MissingExtra("the noun parser needs NLTK: pip install nltk") from error

    def nouns(caption: str) -> set[str]:
        try:
            tagged = nltk.pos_tag(nltk.word_tokenize(caption))
        except LookupError as error:
            raise MissingExtra(
                "NLTK's English data is missing: python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng"
            ) from error
        return {word.lower() for word, tag in tagged if tag.startswith("NN")}

    return nouns
