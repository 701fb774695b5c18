"""`ttd models`: what has a short name, and the methods; `check` shows what one model is."""

from __future__ import annotations

from dataclasses import asdict

import click

from ttd.cli.models_check import check
from ttd.cli.output import table
from ttd.runs.results_file import json_line


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models and adapters that have a short name, and the methods and protocols, with their sources."""
    if ctx.invoked_subcommand is not None:
        return
    from ttd.encoders.loading.catalogue import known_models
    from ttd.encoders.methods import known_methods
    from ttd.inference.protocols import PROTOCOLS

    entries, methods = known_models(), known_methods()
    if as_json:
        for entry in entries:
            click.echo(json_line(asdict(entry)))
        for method in methods:
            record = {"name": method.name, "what": "method", "protocol": method.protocol, "source": method.source}
            click.echo(json_line({**record, "licence": method.licence or None}))
        for name, protocol in PROTOCOLS.items():
            record = {"name": name, "what": "protocol", "source": protocol.source}
            click.echo(json_line({**record, "licence": protocol.licence or None}))
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
    click.echo()
    shown = [(m.name, m.protocol, m.licence or "-", m.source) for m in methods]
    click.echo(table(("method", "protocol", "licence", "source"), shown))
    click.echo()
    rows_of = [(name, protocol.licence or "-", protocol.source) for name, protocol in PROTOCOLS.items()]
    click.echo(table(("protocol", "licence", "source"), rows_of))


models.add_command(check)


def size(number: int | None) -> str:
    """Bytes as a person reads them; a dash where unknown."""
    if number is None:
        return "-"
    if number < 1e6:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
