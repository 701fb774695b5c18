"""Taggers of the text: they choose words of captions without the image. Their interface, and all by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttd.errors import InputError

NOUN_TAGGERS = ("nltk", "spacy")
TAGGERS = (*NOUN_TAGGERS, "llm")


@dataclass(frozen=True)
class Caption:
    """A caption and how it was split, so that a tagger decides about exactly these words.

    Attributes:
        text: as written.
        words: its tokens in order.
    """

    text: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """What a tagger chose from one caption.

    Attributes:
        selected: for every word of the caption whether it was chosen.
        others: words that the tagger named and the caption does not have, lower case.
    """

    selected: tuple[bool, ...]
    others: tuple[str, ...] = ()

    def words(self, caption: Caption) -> list[str]:
        """The distinct chosen words, lower case, the caption's in order, then the others."""
        own = (word.lower() for word, chosen in zip(caption.words, self.selected, strict=True) if chosen)
        return list(dict.fromkeys([*own, *self.others]))


class TextTagger(ABC):
    """Chooses words of captions without their images.

    Attributes:
        name: as tables show it.
        settings: what decides its choice, in plain values.
    """

    name: str
    settings: dict[str, Any]

    @abstractmethod
    def choose(self, captions: Sequence[Caption]) -> list[Chosen | None]:
        """One choice per caption, None where the tagger gave no usable answer."""


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
        from ttd.taggers.nouns import open_nouns

        return open_nouns(name, spacy_model)
    if not llm or not llm.get("url") or not llm.get("model"):
        raise InputError("the tagger llm needs --llm-url (for example http://localhost:8000/v1) and --llm-model")
    from ttd.taggers.language_model import LanguageModel

    return LanguageModel(**llm)
