"""What a tagger of the text promises: captions in, for each the words that it chose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


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
