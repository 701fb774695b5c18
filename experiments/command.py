"""A command of `python -m experiments.NAME`: errors are one sentence and an exit code, as in `ttd`."""

from __future__ import annotations

from typing import Any

import click

from ttd.cli.errors import exit_code


class Experiment(click.Command):
    """A click command that ends the process as `ttd` does: 0, 2 for wrong input, 130 and 143 for signals."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs and ends the process."""
        kwargs["standalone_mode"] = False
        raise SystemExit(exit_code(lambda: super(Experiment, self).main(*args, **kwargs)))
