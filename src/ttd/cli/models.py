"""`ttd models`: what has a short name."""

from __future__ import annotations

from dataclasses import asdict

import click

from ttd.cli.output import table
from ttd.cli.results_file import json_line


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def models(as_json: bool) -> None:
    """List the models and adapters that have a short name, with size, licence and source."""
    from ttd.encoders.loading.catalogue import known_models

    entries = known_models()
    if as_json:
        for entry in entries:
            click.echo(json_line(asdict(entry)))
        return
    rows = [
        (
            e.name,
            f"{e.what} of {e.base}" if e.base else e.what,
            e.kind,
            size(e.size),
            e.licence,
            e.source,
            e.notes,
        )
        for e in entries
    ]
    click.echo(table(("name", "what", "kind", "size", "licence", "source", "notes"), rows))


def size(number: int | None) -> str:
    """Bytes as a person reads them; a dash where unknown."""
    if number is None:
        return "-"
    if number < 1e6:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
