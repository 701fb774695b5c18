"""The options of the selection by negative words, and where these words come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import with_options
from ttd.errors import InputError
from ttd.registry import RULES

if TYPE_CHECKING:
    from ttd.tagger import Selection


@dataclass(frozen=True)
class SelectionChoice:
    """How words are selected; None leaves it to the score, or to the package.

    Attributes:
        name: the rule.
        threshold: for "softmax", "min-max", "calibrated" and "threshold".
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
        if self.name == "negatives" and score != "s_pixel":
            raise InputError(f"--selection negatives compares s_pixel, not {score}; leave one of them out.")
        if self.name == "calibrated" and score == "s_seg":
            raise InputError("--selection calibrated is for cosines, and s_seg is a share; leave one of them out.")
        if self.threshold is not None and (self.name or {"s_pixel": "gap"}.get(score)) in ("gap", "negatives"):
            raise InputError(
                "--threshold cuts scores that were scaled; add --selection softmax, min-max, calibrated or "
                "threshold, or leave it out."
            )
        if self.name != "negatives" and (self.percentile is not None or self.source is not None):
            raise InputError("--percentile and --negatives belong to --selection negatives; add it, or leave them out.")

    def selection(self, score: str) -> Selection:
        """What `TTD.tag` takes."""
        from ttd.tagger import Selection

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
        type=click.Choice(RULES),
        help="Which scored words count: those above the largest gap, ...; by default the score's own.",
    ),
    click.option(
        "--threshold",
        type=click.FloatRange(0.0, 1.0),
        help="For all rules but gap and negatives; by default 0.5.",
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
