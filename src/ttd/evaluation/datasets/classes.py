"""Class lists in plain text files, which a user can copy and change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ttd.data.rows import decoded
from ttd.errors import InputError
from ttd.evaluation.metrics import IGNORED
from ttd.results import Segmentation


def read_lines(path: Path, advice: str) -> list[str]:
    """The lines of a text file, in UTF-8 or what its byte order mark says.

    Raises:
        InputError: missing, a folder, or in another encoding; ends with `advice`, what to do.
    """
    try:
        return decoded(path.read_bytes()).splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: {advice}") from None
    except (UnicodeError, IsADirectoryError):
        raise InputError(f"{path} is not a text file in UTF-8: {advice}") from None


def read_numbers(name: str | Path) -> dict[int, str]:
    """Number -> name, from the package's `assets/labels` by name or from any file; lines with `#` are comments.

    Raises:
        InputError: missing, no text, or a line of another form.
    """
    own = files("ttd").joinpath(f"assets/labels/{name}.txt")
    try:
        text = decoded((own if isinstance(name, str) and own.is_file() else Path(name)).read_bytes())
    except (OSError, UnicodeError):
        raise InputError(f"{name} cannot be read: give a text file with lines of `number: name`") from None
    found: dict[int, str] = {}
    for row, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        number, colon, title = line.partition(":")
        try:
            key = int(number)
        except ValueError:
            colon = ""
        if not colon or not title.strip():
            raise InputError(f"line {row} of {name} is not of the form `number: name`: correct it")
        found[key] = title.strip()
    if not found:
        raise InputError(f"{name} names no number: write lines of `number: name`")
    return found


BACKGROUND = "background"


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set in the order of its labels.

    Attributes:
        names: one tuple per class: the name, then synonyms.
        background: whether the first class is what no other class is.
    """

    names: tuple[tuple[str, ...], ...]
    background: bool

    def __len__(self) -> int:
        return len(self.names)

    @property
    def titles(self) -> list[str]:
        """The first name of every class."""
        return [names[0] for names in self.names]

    def texts(self, synonyms: bool = False) -> list[str]:
        """What a model is asked for: every class's name, without the background; or all names, other words for the
        background too.
        """
        return [text for texts, _ in self.asked(synonyms) for text in texts]

    @property
    def background_words(self) -> tuple[str, ...] | None:
        """Other words for the background, possibly none; None where no class is the background."""
        return self.names[0][1:] if self.background else None

    def asked(self, synonyms: bool = False, words: bool = True) -> list[tuple[tuple[str, ...], int]]:
        """The texts of each class that a model is asked for, and its number.

        Args:
            synonyms: all names of a class, other words for the background too.
            words: whether these words are asked for as a class; else the question names them otherwise.
        """
        asked = []
        for number, names in enumerate(self.names):
            # The background is what no other class is; only other words for it can be asked for.
            behind = self.background and number == 0
            texts = names[1 if behind else 0 : None if synonyms else 1]
            if texts and (words or not behind):
                asked.append((texts, number))
        return asked

    def labels(self, found: Segmentation, synonyms: bool = False, words: bool = True) -> np.ndarray:
        """A model's answer to `asked` as the data set's labels, int64 [H,W]; `len(self)` where it has no prediction."""
        numbers = [number for _, number in self.asked(synonyms, words)]
        if found.background is not None:
            numbers.insert(0, 0 if self.background else len(self))
        return np.array(numbers, np.int64)[found.label_map]


def read_classes(name: str | Path | tuple[str, ...]) -> ClassList:
    """The class list of a benchmark by name, any file, or the lines themselves: a class each, `name; synonym; synonym`.

    A list without semicolons may have commas in their place (`cls_voc21.txt` and others of the field). Lines that begin
    with `#` are comments. The first class may be `background`.

    Raises:
        InputError: missing, empty, a class twice, more classes than a label map of 8 bits holds.
    """
    if isinstance(name, tuple):
        return _parse(name, "of the data set")
    if isinstance(name, str) and (own := _own_list(name)).is_file():
        return _parse(own.read_text("utf-8").splitlines(), name)
    return _parse(read_lines(Path(name), "give a text file with one class per line"), str(name))


def own_classes(
    name: str,
    instead: str | Path | None,
    listed: str | Path | tuple[str, ...] | None = None,
    spelled: Sequence[str] = (),
) -> ClassList:
    """The class list of a benchmark, or a protocol's or a user's in its place.

    Args:
        name: of the benchmark.
        instead: the user's.
        listed: where the benchmark's own list is; None: in the package, under its name.
        spelled: folders of `ttd/assets/classes` that may have it as a protocol spells it, the first that does counts.

    Raises:
        InputError: the user's does not have the same number of classes.
    """
    own = read_classes(listed or name)
    if instead is None and listed is None:
        instead = next((f"{folder}/{name}" for folder in spelled if _own_list(f"{folder}/{name}").is_file()), None)
    if instead is None:
        return own
    theirs = read_classes(instead)
    if own.background and not theirs.background and len(theirs) == len(own) and len(theirs.names[0]) > 1:
        # Lists of the field name the background by what it is made of: "sky, wall, tree, ...".
        theirs = ClassList(((own.titles[0], *theirs.names[0]), *theirs.names[1:]), True)
    if (len(theirs), theirs.background) != (len(own), own.background):
        behind = " (the first is the background)" if own.background else ", none of them the background"
        raise InputError(
            f"{instead} lists {len(theirs)} classes{' with a background' if theirs.background else ''}, "
            f"{name} has {len(own)}{behind}: write one per line in the order of {name}'s own list"
        )
    return theirs


def _own_list(name: str) -> Any:
    return files("ttd").joinpath(f"assets/classes/{name}.txt")


def _parse(lines: Iterable[str], name: str) -> ClassList:
    rows = [row for line in lines if (row := line.strip()) and not row.startswith("#")]
    separator = ";" if any(";" in row for row in rows) else ","
    classes = tuple(tuple(part.strip() for part in row.split(separator) if part.strip()) for row in rows)
    titles = [names[0] if names else "" for names in classes]
    background = bool(titles) and titles[0].lower() == BACKGROUND
    if len(titles) - background < 1:
        raise InputError(f"the class list {name} names no class: write one per line")
    if "" in titles:
        raise InputError(f"the class list {name} has {rows[titles.index('')]!r} for a class: write its name")
    same = [title.lower() for title in titles]  # as models ask
    if twice := [title for i, title in enumerate(titles) if title.lower() in same[:i]]:
        raise InputError(f"the class list {name} has {twice[0]!r} twice: every class needs its own name")
    if len(titles) >= IGNORED:
        raise InputError(f"the class list {name} has {len(titles)} classes: label maps hold at most {IGNORED - 1}")
    return ClassList(classes, background)
