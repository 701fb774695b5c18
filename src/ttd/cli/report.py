"""`ttd report`: join runs of `ttd eval` into one page."""

from __future__ import annotations

from pathlib import Path

import click

from ttd.cli.output import printable, writable_folder


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--out", required=True, metavar="DIR", help="For report.md and report.html.")
def report(folders: tuple[str, ...], out: str) -> None:
    """Join runs of `ttd eval` into one table per benchmark, beside the published numbers.

    \b
    ttd report runs/before runs/after --out runs/report
    """
    from ttd.benchmarks.report import read_run, write_report

    runs = [read_run(Path(folder)) for folder in folders]
    for path in write_report(runs, writable_folder(Path(out))):
        click.echo(f"wrote {printable(str(path))}")
