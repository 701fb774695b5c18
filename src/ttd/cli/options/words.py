"""The options about how words of a caption are chosen: the selection with its negative words, taggers of the text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import NameOf, with_options
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit, fields
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

    return with_options(_SELECTION_OPTIONS, command)


_SELECTION_OPTIONS = (
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


_EXAMPLE = '{"max_tokens": 256}'


@dataclass(frozen=True)
class TaggerChoice:
    """How the taggers are set up; None: their own defaults.

    Attributes:
        spacy_model: see `ttd.taggers.nouns.open_nouns`.
        llm: the arguments of `ttd.taggers.language_model.LanguageModel` that were given.
    """

    spacy_model: str | None
    llm: dict[str, Any] | None

    def check(self, names: tuple[str, ...]) -> None:
        """Raises `InputError` where an option belongs to a tagger that is not asked."""
        if self.llm and "llm" not in names:
            raise InputError(f"--llm-{next(iter(self.llm)).replace('_', '-')} needs --tagger llm")
        if self.spacy_model and "spacy" not in names:
            raise InputError("--spacy-model needs --tagger spacy")


def request_fields(ctx: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """A JSON object."""
    if value is None:
        return None
    try:
        found: dict[str, Any] = parse_json(value, fields({}))
    except Misfit:
        raise click.BadParameter(f"{value!r} is not a JSON object, such as {_EXAMPLE}", ctx, parameter) from None
    return found


_TAGGER_OPTIONS = (
    click.option("--spacy-model", metavar="NAME", help="spaCy's model; by default en_core_web_sm."),
    click.option("--llm-url", metavar="URL", help="Server with OpenAI's interface: http://localhost:8000/v1."),
    click.option("--llm-model", metavar="NAME", help="As the server calls it. A key: $TTD_LLM_API_KEY."),
    click.option("--llm-prompt", metavar="FILE", help="Text with {caption} in it; by default the shipped one."),
    click.option(
        "--llm-request",
        callback=request_fields,
        metavar="JSON",
        help='More fields of the request; null leaves one out. By default {"temperature": 0, "max_tokens": 512}.',
    ),
    click.option(
        "--llm-ignore-others",
        is_flag=True,
        default=None,
        help="Leave out words that the caption does not have; else they count, as wrong ones.",
    ),
    click.option("--llm-at-once", type=click.IntRange(1, 1024), metavar="N", help="Questions under way; default 8."),
    click.option("--llm-timeout", type=click.FloatRange(0.1), metavar="SECONDS", help="For one answer; default 60."),
    click.option("--llm-retries", type=click.IntRange(0), metavar="N", help="After faults that may pass; default 5."),
    click.option("--llm-cache", metavar="DIR", help="Where answers are kept; by default in $TTD_CACHE."),
)


def tagger_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them together as its argument `words_by`."""

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        spacy_model = given.pop("spacy_model")
        names = [name for name in given if name.startswith("llm_")]
        llm = {name.removeprefix("llm_"): value for name in names if (value := given.pop(name)) is not None}
        return function(words_by=TaggerChoice(spacy_model, llm or None), **given)

    return with_options(_TAGGER_OPTIONS, command)
