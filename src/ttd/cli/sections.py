"""Help of commands with many options: options under headings, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

WIDEST = 110  # columns of help text; click's own 80 break most sentences in two


class SectionedCommand(click.Command):
    """A command whose help lists its options under headings.

    Args:
        sections: for each heading the options that stand under it, named as on the command line ("--out"), in order.
            Those that no heading names stand under "Other".
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
        """The options that stand on the command line, as they are named in `sections`."""
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
