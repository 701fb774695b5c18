"""What taggers of the text make of a TagMask set's captions, as records and as rows of the tag table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ttd.benchmarks.tag_tables import Decided
from ttd.benchmarks.tagmask_set import TagMaskRow
from ttd.taggers.text_tagger import Caption, Chosen, TextTagger


class TextTags:
    """Asks the taggers about many captions at once and keeps the answers until they are fetched.

    Args:
        taggers: each with a name of its own.
        rows: of the set.
    """

    def __init__(self, taggers: Sequence[TextTagger], rows: Sequence[TagMaskRow]) -> None:
        self.taggers, self._rows = tuple(taggers), rows
        self._ready: dict[int, dict[str, dict[str, Any] | None]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the taggers."""
        return tuple(tagger.name for tagger in self.taggers)

    def prepare(self, numbers: Sequence[int]) -> None:
        """Asks about these rows."""
        captions = [Caption(self._rows[number].caption, self._rows[number].words) for number in numbers]
        found = {tagger.name: tagger.choose(captions) for tagger in self.taggers}
        self._ready = {
            number: {name: _record(chosen[place]) for name, chosen in found.items()}
            for place, number in enumerate(numbers)
        }

    def fetch(self, number: int) -> dict[str, dict[str, Any] | None]:
        """By tagger: "selected" of every word, "others" that the caption does not have; None without an answer."""
        if number not in self._ready:
            self.prepare([number])
        return self._ready.pop(number)


def decided(tags: Mapping[str, Any], found: Mapping[str, Any] | None) -> Decided:
    """A tagger's record beside the caption's words and truth; what the caption does not have counts as wrong words."""
    selected = list(found["selected"]) if found else [False] * len(tags["words"])
    others = list(found["others"]) if found else []
    return Decided(
        [*tags["words"], *others],
        np.array([*tags["true"], *[False] * len(others)], bool),
        None,
        np.array([*selected, *[True] * len(others)], bool),
    )


def _record(chosen: Chosen | None) -> dict[str, Any] | None:
    return None if chosen is None else {"selected": list(chosen.selected), "others": list(chosen.others)}
