"""Negative words: words that are not in an image's captions, with which its caption's words are compared.

A word of the caption counts when it fits the image better than most words of other captions, or of a list, do: a
permutation test (`ttd.scoring.select_above_negatives`; not in the paper). Words that may be true because the caption
says something like them are not negatives: see `akin`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from ttd.errors import InputError
from ttd.text.words import distinct, is_stop_word, singulars, split_words

PERCENTILE = 90.0  # of the negative words' scores, which a word must exceed unless said otherwise
FEWEST = 64  # with fewer words of other captions the list is the better choice
MOST = 500  # words that an image is compared with; of more, so many are drawn
CAPTIONS, LIST = "captions", "list"
_SHORTEST_PART = 3  # letters: "sun" is a part of "sunflower"
_REMEMBERED = 50_000  # words of captions


class NegativeWords:
    """Distinct words, lower case, at most `MOST`, and which of them a caption may borrow.

    Of more words so many are drawn, the same ones whatever their order.

    Attributes:
        texts: the words.

    Raises:
        InputError: no word is given, or one is empty.
    """

    def __init__(self, words: Iterable[str]) -> None:
        given = [word.strip() for word in words]
        if not given or not all(given):
            raise InputError("the negative words: give at least one, none of them empty")
        texts = distinct(given)[0]
        if len(texts) > MOST:
            texts = sorted(random.Random(0).sample(sorted(texts), MOST))
        self.texts = texts
        self._akin: dict[str, frozenset[int]] = {}

    def __len__(self) -> int:
        """How many words there are."""
        return len(self.texts)

    def others(self, own: Iterable[str]) -> list[bool]:
        """For each word whether it may be a negative by a caption with these words of its own, as written."""
        barred: set[int] = set()
        for word in {word.lower() for word in own}:
            if word not in self._akin:
                if len(self._akin) == _REMEMBERED:
                    self._akin.clear()
                self._akin[word] = frozenset(i for i, text in enumerate(self.texts) if akin(word, text))
            barred |= self._akin[word]
        return [i not in barred for i in range(len(self.texts))]


def akin(word: str, other: str) -> bool:
    """Whether two words or phrases, lower case, say something of the same thing as far as their letters show.

    They do where they are equal, one may be the other's plural, they share a part that is not a stop word ("traffic
    light", "light"), or a part of one begins or ends with a part of the other ("sunflower", "flower"). That bars a few
    words too many ("car", "carpet"), which costs the comparison nothing.
    """
    return word == other or any(_overlap(a, b) for a in _parts(word) for b in _parts(other))


def _overlap(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    return a == b or (len(short) >= _SHORTEST_PART and (long.startswith(short) or long.endswith(short)))


@lru_cache(_REMEMBERED)
def _parts(text: str) -> frozenset[str]:
    """The words of a text, also of a hyphenated one, that are not stop words, with their singulars."""
    pieces = [text, *(piece for word in split_words(text) for piece in word.text.split("-"))]
    return frozenset(form for piece in pieces if piece and not is_stop_word(piece) for form in singulars(piece))


def caption_words(captions: Iterable[str], *, stop_words: bool = True) -> list[str]:
    """The distinct words of captions, lower case, in order: what their images borrow from each other.

    Args:
        captions: any texts.
        stop_words: leave stop words and punctuation out, as tagging does.
    """
    return distinct(word.text for caption in captions for word in split_words(caption, stop_words))[0]


def listed_words(known: frozenset[str] | None = None) -> list[str]:
    """The package's list of visible things; of a closed vocabulary `known` only what is in it."""
    words = _read(files("ttd").joinpath("assets/nouns.txt").read_text("utf-8"))
    return words if known is None else [word for word in words if word in known]


def find_negatives(source: str | None, said: Iterable[str]) -> list[str] | None:
    """The words to compare with, by name; None means the package's list.

    Args:
        source: "captions", "list", or a file of words; None: captions where they hold `FEWEST` words, else the list.
        said: the words of all captions.

    Raises:
        InputError: the file cannot be read, or the captions hold no words.
    """
    if source not in (None, CAPTIONS, LIST):
        return read_words(Path(source))
    if source == LIST:
        return None
    words = distinct(said)[0]
    if source == CAPTIONS and not words:
        raise InputError("there are no captions to take negative words from: choose the list, or a file of words")
    return words if source == CAPTIONS or len(words) >= FEWEST else None


def digest(words: Iterable[str] | None) -> str:
    """Tells lists of words apart, in whatever order; "list" for the package's (None)."""
    if words is None:
        return LIST
    return hashlib.sha256("\n".join(sorted(words)).encode("utf-8", "replace")).hexdigest()[:16]


def read_words(path: Path) -> list[str]:
    """The words of a file, one per line; empty lines and lines that begin with # are left out.

    Raises:
        InputError: the file cannot be read, or holds no word.
    """
    try:
        words = _read(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8: write one word per line") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a file with one word per line") from None
    if not words:
        raise InputError(f"{path} holds no word: write one per line")
    return words


def _read(text: str) -> list[str]:
    lines: Sequence[str] = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
