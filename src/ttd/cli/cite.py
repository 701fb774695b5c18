"""`ttd cite`: how to cite the paper and this package."""

from __future__ import annotations

from importlib.resources import files

import click


@click.command()
def cite() -> None:
    """Print BibTeX of the paper whose method this is, and of this package.

    Methods, refiners and data sets have sources of their own: `ttd models` names those of the methods.
    """
    click.echo(files("ttd").joinpath("assets/citation.bib").read_text("utf-8"), nl=False)
