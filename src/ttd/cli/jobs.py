"""What a command does with one picture, so that one picture and a folder of them take the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ttd.cli.sources import Item

if TYPE_CHECKING:
    from PIL import Image

    from ttd.model import TTD


@dataclass(frozen=True)
class Answer:
    """The result for one picture.

    Attributes:
        record: for JSON.
        table: for people, several lines.
        brief: for people who look at many pictures, one line.
        notes: one line each for stderr: what was cut or is unknown.
        pictures: a name's ending ("" for the main picture) and what draws it; drawn only when asked for.
    """

    record: dict[str, Any]
    table: str
    brief: str
    notes: tuple[str, ...] = ()
    pictures: dict[str, Callable[[], Image.Image]] = field(default_factory=dict)


class Job(ABC):
    """One command's work."""

    name: str

    def over(self, items: Sequence[Item]) -> Job:
        """The job for these items, told once before the first of them; itself, where it need not know them."""
        return self

    @abstractmethod
    def check(self, item: Item) -> None:
        """Raises `InputError` where the item lacks what the command needs."""

    @abstractmethod
    def question(self) -> dict[str, Any]:
        """The command's own options, for `run.json`."""

    @abstractmethod
    def answers(
        self, model: TTD, images: Sequence[Image.Image], items: Sequence[Item], *, pictures: bool
    ) -> list[Answer]:
        """One answer per item; with `pictures` they can be drawn."""


def text_notes(cut: Sequence[str], unknown: Sequence[str]) -> tuple[str, ...]:
    """The lines about texts that were cut (where the model has not logged it) and words outside its world."""
    notes = []
    if cut:
        notes.append(f"cut, because longer than the text encoder takes: {shortened(cut)}")
    if unknown:
        notes.append(f"outside this model's world (scores mean little): {shortened(unknown)}")
    return tuple(notes)


def shortened(texts: Sequence[str], most: int = 8, length: int = 40) -> str:
    """A few of `texts`, each at most `length` characters, and how many more there are."""
    shown = [text if len(text) <= length else text[: length - 1] + "…" for text in texts[:most]]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(shown) + more
