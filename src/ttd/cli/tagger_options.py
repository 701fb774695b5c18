"""The options of the commands that ask taggers of the text: nouns, and language models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from ttd.cli.options import with_options
from ttd.errors import InputError
from ttd.files.documents import parse_json
from ttd.files.schema import Misfit, fields

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


_OPTIONS = (
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

    return with_options(_OPTIONS, command)
