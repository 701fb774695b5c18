"""What the options of several commands are made of: names from registries, lists, numbers, headings, and the
dataclasses that options are gathered in.

Which model and how it is asked: `model`; which words count: `words`; which images or pairs, and where: `data`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.output import start_logging

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

WIDEST = 110  # columns of help text; click's own 80 break most sentences in two
VERBOSE_OPTION = click.option("--verbose", "-v", is_flag=True, help="Say more on stderr.")

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def with_options(options: Iterable[Decorator], command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with options, in their order in the help."""
    for option in reversed(list(options)):
        command = option(command)
    return command


def gathered(kind: type[Any], argument: str, options: Iterable[Decorator]) -> Decorator:
    """Adds options that a command gets together in one argument; `--verbose` among them starts the log.

    Args:
        kind: a dataclass whose fields are the options' names; one without an option keeps its default.
        argument: its name in the command's function.
        options: of the command line, in their order in the help.
    """

    def added(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**given: Any) -> Any:
            found = kind(**{field.name: given.pop(field.name) for field in fields(kind) if field.name in given})
            if getattr(found, "verbose", None) is not None:
                start_logging(found.verbose)
            return function(**{argument: found}, **given)

        return with_options(options, command)

    return added


class NameOf(click.ParamType[str]):
    """One of the names that a registry knows when the help or a value asks for them.

    Args:
        names: gives them, those of other packages too.
    """

    name = "name"

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self.names = names

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """As `click.Choice`."""
        return self._choice.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name; fails where there is none."""
        return self._choice.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """As `click.Choice`."""
        return self._choice.shell_complete(ctx, param, incomplete)

    @property
    def _choice(self) -> click.Choice[str]:
        return click.Choice(list(self.names()))


class ListCommand(click.Command):
    """A command whose options named in `lists` take all words that follow: `--tags dog "traffic light"
    sky`.

    The list ends at the next option or at `--`. Repeating the option and commas work too; an element that
    begins with a dash is written `--tags=-x`.
    """

    lists = ("--tags",)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeats a list option before each of its words, which is the form that click knows."""
        plain: list[str] = []
        current: str | None = None
        for number, word in enumerate(args):
            if word == "--":
                plain += args[number:]
                break
            if word in self.lists:
                current = word
                if number + 1 == len(args) or args[number + 1].startswith("-"):
                    raise click.UsageError(f"{word} needs at least one word after it.", ctx)
            elif word.startswith("-") and word != "-":
                current = None
                plain.append(word)
            else:
                plain += [current, word] if current else [word]
        return super().parse_args(ctx, plain)


def tag_list(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list option, with commas taken apart and empty ones left out."""
    return tuple(part.strip() for value in values for part in clean_text(value).split(",") if part.strip())


def clean_text(text: str) -> str:
    """An argument of the command line as valid Unicode: bytes that were not UTF-8 become replacement marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def numbers_of(kind: type[int] | type[float]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A callback for numbers separated by commas."""

    def parse(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None:
            return None
        try:
            return tuple(kind(part) for part in value.split(","))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise click.BadParameter(f"{value!r} is not {what} separated by commas.", ctx, parameter) from None

    return parse


class SectionedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        sections: for each heading the options under it, named as on the command line ("--out"), in order.
            Those that no heading names are under "Other".
        names: the values of the argument NAME, listed below the text.
    """

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Sequence[str]],
        names: Callable[[], Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{"context_settings": {"max_content_width": WIDEST}, **kwargs})
        self.sections, self.names = sections, names

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the text and the names."""
        super().format_help_text(ctx, formatter)
        if self.names is not None:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(f"NAME: {', '.join(self.names())}.")

    def given(self, ctx: click.Context) -> list[str]:
        """The options on the command line, as they are named in `sections`."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option) and one.name]
        typed = click.core.ParameterSource.COMMANDLINE
        return [_long(one) for one in options if ctx.get_parameter_source(one.name or "") is typed]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one list for each heading."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        records = {_long(one): record for one in options if (record := one.get_help_record(ctx))}
        named = {name for names in self.sections.values() for name in names}
        rest = [name for name in records if name not in named]
        for heading, names in {**self.sections, "Other": rest}.items():
            if rows := [records[name] for name in names if name in records]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)
