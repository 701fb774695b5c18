"""`ttd report`: join runs of `ttd eval` into one page, with images side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import with_options
from ttd.cli.options.model import DEVICE_OPTION
from ttd.cli.output import writable_folder
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.evaluation.report.finished_run import FinishedRun
    from ttd.evaluation.report.formats import Tables

_FORMATS = {"markdown": "Markdown", "latex": "LaTeX (booktabs)", "csv": "CSV", "json": "JSON"}


def format_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--markdown`, `--latex`, `--csv` and `--json`; the command gets their names as its argument `formats`."""

    @functools.wraps(command)
    def with_formats(**given: Any) -> Any:
        chosen = tuple(name for name in _FORMATS if given.pop(f"as_{name}"))
        return command(formats=chosen, **given)

    options = [
        click.option(f"--{name}", f"as_{name}", is_flag=True, help=f"The tables as {title}; printed without --out.")
        for name, title in _FORMATS.items()
    ]
    return with_options(options, with_formats)


def write_formats(tables: Tables, formats: Sequence[str], folder: Path | None, name: str) -> None:
    """Writes the tables as `NAME.tex` and so on, or prints them where there is no folder."""
    from ttd.evaluation.report.formats import FORMATS
    from ttd.files import write_file

    for chosen in formats:
        ending, write = FORMATS[chosen]
        text = write(tables)
        if folder is None:
            click.echo(text, nl=False)
            continue
        write_file(folder / f"{name}.{ending}", text, errors="replace")
        click.echo(f"wrote {printable(str(folder / f'{name}.{ending}'))}")


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option(
    "--images",
    "count",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Also a page of images, N for each kind (best, median, worst ...); the models are asked again, on --device.",
)
@DEVICE_OPTION
@format_options
@click.option("--out", metavar="DIR", help="For report.md, report.html and pages of images.")
def report(folders: tuple[str, ...], count: int, device: str | None, formats: tuple[str, ...], out: str | None) -> None:
    """Join runs of `ttd eval` into one table per benchmark, beside the published numbers.

    \b
    ttd report runs/before runs/after --out runs/report
    ttd report runs/before runs/after runs/refined --images 3 --out runs/report
    ttd report runs/before runs/after --latex > table.tex

    Rows are named by model and adapter, and by whatever else differs. Published rows are next to ours where their
    protocol is that of a run; the others are folded away, and left out of LaTeX.

    Images are in the order of the folders: best, median and worst are those of the last one, and what changed
    most is against the first. Runs on other data get a page of their own.
    """
    from ttd.evaluation.report.finished_run import read_run
    from ttd.evaluation.report.formats import by_benchmark, write_report
    from ttd.evaluation.report.tables import tables

    if out is None and (count or not formats):
        raise click.UsageError("Give --out DIR for a page, or a format to print: --markdown, --latex, --csv or --json.")
    runs = [read_run(Path(folder)) for folder in folders]
    found = {benchmark: tables(mine) for benchmark, mine in by_benchmark(runs).items()}
    if out is None:
        return write_formats(found, formats, None, "report")
    folder = writable_folder(Path(out))
    pages = {}
    if count:
        for benchmark, mine in by_benchmark(runs).items():
            if page := _images(benchmark, mine, count, device, folder):
                pages[benchmark] = page.name
                click.echo(f"wrote {printable(str(page))}")
    for path in write_report(runs, folder, pages):
        click.echo(f"wrote {printable(str(path))}")
    write_formats(found, tuple(name for name in formats if name != "markdown"), folder, "report")


def _images(benchmark: str, runs: list[FinishedRun], count: int, device: str | None, folder: Path) -> Path | None:
    """The page of one benchmark's runs; None, and a word about it, where it shows no images."""
    from ttd.errors import InputError
    from ttd.evaluation.report.gallery import ImageSource, sections, write_images
    from ttd.evaluation.report.tables import titles

    if len({run.data for run in runs}) > 1:
        raise InputError(
            f"the runs on {benchmark} measured different data: report them one by one, or without --images"
        )
    names = titles(runs)
    sources = [
        ImageSource(name, run.folder, run.benchmark(), lambda run=run: run.reopen(device))  # type: ignore[misc]
        for name, run in zip(names, runs, strict=True)
    ]
    parts = sections(sources, count)
    if not parts:
        click.echo(f"{benchmark} has no images to show", err=True)
        return None
    page = folder / f"images-{benchmark}.html"
    about = "In this order: " + "; ".join(names) if len(runs) > 1 else names[0]
    write_images(page, f"{benchmark}: images", about, parts)
    return page
