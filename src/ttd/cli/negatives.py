"""The options of the selection, and where the negative words of one that compares with them come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import NameOf, with_options
from ttd.errors import InputError
from ttd.registry import RULES

if TYPE_CHECKING:
    from ttd.selection import Selection


@dataclass(frozen=True)
class SelectionChoice:
    """How words are selected; None leaves it to the score, or to the package.

    Attributes:
        name: the rule.
        threshold: for rules that have one.
        percentile: for "negatives", 0..100: of the negative words' scores, which a word must exceed.
        source: for "negatives": "captions", "list" or a file; None: captions where there are enough of them.
        words: the negative words, once they are known; None: the package's list.
    """

    name: str | None
    threshold: float | None
    percentile: float | None
    source: str | None
    words: tuple[str, ...] | None = None

    def check(self, score: str) -> None:
        """Raises `InputError` where an option is for another selection, or the selection for another score."""
        if (self.name, self.threshold, self.percentile, self.source) == (None,) * 4:
            return  # nothing to look up: torch is loaded later
        rule = self.selection(score).found
        if self.threshold is not None and not rule.threshold:
            raise InputError(
                "--threshold cuts scores that were scaled; add --selection softmax, min-max, calibrated or "
                "threshold, or leave it out."
            )
        if not rule.negatives and (self.percentile is not None or self.source is not None):
            raise InputError("--percentile and --negatives belong to --selection negatives; add it, or leave them out.")

    @property
    def compares(self) -> bool:
        """Whether the rule needs negative words."""
        from ttd.selection import find_rule

        return self.name is not None and find_rule(self.name).negatives

    def selection(self, score: str) -> Selection:
        """What `TTD.tag` takes."""
        from ttd.selection import Selection

        given: dict[str, Any] = {"rule": self.name, "threshold": self.threshold, "percentile": self.percentile}
        given["negatives"] = self.words
        return Selection(score, **{name: value for name, value in given.items() if value is not None})

    def question(self, score: str) -> dict[str, Any]:
        """What decides the results, for `run.json`."""
        from ttd.negatives import digest

        return {**asdict(self.selection(score)), "negatives": digest(self.words)}

    def find_negatives(self, captions: Iterable[str], stop_words: bool) -> tuple[tuple[str, ...] | None, str]:
        """The words to compare with, None for the package's list, and a line that says which they are.

        Args:
            captions: of all images.
            stop_words: leave stop words out of the captions'.
        """
        from ttd.negatives import CAPTIONS, MOST, caption_words, find_negatives

        words = find_negatives(self.source, caption_words(captions, stop_words=stop_words))
        if words is None:
            return None, "Words are compared with the package's list of visible things."
        count = f"{len(words)}" if len(words) <= MOST else f"{MOST} of {len(words):,}"
        whose = "the other captions" if self.source in (None, CAPTIONS) else self.source
        return tuple(words), f"Words are compared with {count} words of {whose}."


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command with a `--score`; it gets them together as its argument `selection`."""

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        values = [given.pop(name) for name in ("selection_name", "threshold", "percentile", "negatives")]
        selection = SelectionChoice(*values)
        selection.check(given["score"])
        return function(selection=selection, **given)

    return with_options(_OPTIONS, command)


_OPTIONS = (
    click.option(
        "--selection",
        "selection_name",
        type=NameOf(RULES.names),
        help="Which scored words count: those above the largest gap, ...; by default the score's own.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0.0, 1.0),
        help="For all rules but gap and negatives; 0.5 where none is given.",
    ),
    click.option(
        "--percentile",
        type=click.FloatRange(0.0, 100.0),
        help="For negatives: of the negative words' scores, which a word must exceed; by default 90.",
    ),
    click.option(
        "--negatives",
        metavar="SOURCE",
        help="For negatives: captions (the others'), list (the package's) or a file of words; by default captions "
        "where they hold 64 words, else list.",
    ),
)
