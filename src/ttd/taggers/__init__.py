"""Taggers of the text, by name: they choose words of captions without looking at images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttd.errors import InputError
from ttd.taggers.base import TextTagger
from ttd.taggers.nouns import NOUN_TAGGERS, open_nouns

TAGGERS = (*NOUN_TAGGERS, "llm")


def open_tagger(name: str, spacy_model: str | None = None, llm: Mapping[str, Any] | None = None) -> TextTagger:
    """A tagger of the text.

    Args:
        name: of `TAGGERS`.
        spacy_model: see `ttd.taggers.nouns.open_nouns`.
        llm: the arguments of `ttd.taggers.language_model.LanguageModel`; "url" and "model" are needed.

    Raises:
        MissingExtra: a package or its data is not installed.
        InputError: an unknown name, or options that cannot be used.
    """
    if name not in TAGGERS:
        raise InputError(f"unknown tagger {name!r}: choose from {', '.join(TAGGERS)}")
    if name != "llm":
        return open_nouns(name, spacy_model)
    if not llm or not llm.get("url") or not llm.get("model"):
        raise InputError("the tagger llm needs --llm-url (for example http://localhost:8000/v1) and --llm-model")
    from ttd.taggers.language_model import LanguageModel

    return LanguageModel(**llm)
