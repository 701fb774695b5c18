"""Which words of a caption name which category: plurals, synonyms, compounds.

A list of words cannot see: it takes "orange" the colour for nothing and "light" for a lamp, knows no word that
is not on it, and does not understand "a photo without a dog".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from ttd.benchmarks.text_files import read_lines
from ttd.errors import InputError
from ttd.words import singulars

OTHER = "!"  # compounds that name no category


class WordList:
    """Names of categories, and how they are found in a caption.

    Attributes:
        names: a name of one or several words -> the categories that it may mean (none: something else).
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.names: dict[tuple[str, ...], frozenset[str]] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            category, colon, rest = line.partition(":")
            if not colon:
                raise InputError(f"line {number} of the word list has no colon: write category: name, name")
            for name in rest.split(","):
                if words := tuple(name.lower().split()):
                    meant = frozenset() if category.strip() == OTHER else frozenset({category.strip()})
                    self.names[words] = self.names.get(words, frozenset()) | meant
        self._longest = max((len(words) for words in self.names), default=0)

    @classmethod
    def read(cls, path: Path | None = None) -> WordList:
        """The list of a file, or the package's own for COCO."""
        if path is None:
            return cls(files("ttd").joinpath("assets/coco_words.txt").read_text("utf-8").splitlines())
        return cls(read_lines(path, "give a word list (lines of category: name, name)"))

    @property
    def vocabulary(self) -> dict[str, frozenset[str]]:
        """For each category that a single word names first: that word -> all categories it may mean.

        Synonyms are left out, for whether a person is a man is not known.
        """
        first: dict[str, str] = {}
        for words, categories in self.names.items():
            for category in categories:
                first.setdefault(category, " ".join(words))
        return {name: self.names[(name,)] for name in dict.fromkeys(first.values()) if (name,) in self.names}

    def find(self, words: Sequence[str]) -> list[frozenset[str]]:
        """For each word of a caption (lower case, in order) the categories that it names, alone or as a part.

        The longest name counts: the dog of a hot dog names nothing else.
        """
        forms = [singulars(word) for word in words]
        found: list[frozenset[str]] = [frozenset()] * len(words)
        at = 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                meant = self._meant(words[at : at + length], forms[at + length - 1])
                if meant is not None:
                    found[at : at + length] = [meant] * length
                    at += length
                    break
            else:
                at += 1
        return found

    def _meant(self, words: Sequence[str], last_forms: Sequence[str]) -> frozenset[str] | None:
        """The categories of a name whose last word may be a plural."""
        for last in last_forms:
            if (name := (*words[:-1], last)) in self.names:
                return self.names[name]
        return None
