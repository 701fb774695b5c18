"""`ttd report`: join runs of `ttd eval` into one page, with images side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ttd.cli.options import DEVICE_OPTION
from ttd.cli.output import printable, writable_folder

if TYPE_CHECKING:
    from ttd.evaluation.report.finished_run import FinishedRun


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
@click.option("--out", required=True, metavar="DIR", help="For report.md, report.html and pages of images.")
def report(folders: tuple[str, ...], count: int, device: str | None, out: str) -> None:
    """Join runs of `ttd eval` into one table per benchmark, beside the published numbers.

    \b
    ttd report runs/before runs/after --out runs/report
    ttd report runs/before runs/after runs/refined --images 3 --out runs/report

    Images stand in the order of the folders: best, median and worst are those of the last one, and what changed
    most is against the first. Runs on other data get a page of their own.
    """
    from ttd.evaluation.report.finished_run import read_run
    from ttd.evaluation.report.page import by_benchmark, write_report

    runs = [read_run(Path(folder)) for folder in folders]
    folder = writable_folder(Path(out))
    pages = {}
    if count:
        for benchmark, mine in by_benchmark(runs).items():
            if page := _images(benchmark, mine, count, device, folder):
                pages[benchmark] = page.name
                click.echo(f"wrote {printable(str(page))}")
    for path in write_report(runs, folder, pages):
        click.echo(f"wrote {printable(str(path))}")


def _images(benchmark: str, runs: list[FinishedRun], count: int, device: str | None, folder: Path) -> Path | None:
    """The page of one benchmark's runs; None, and a word about it, where it shows no images."""
    from ttd.errors import InputError
    from ttd.evaluation.report.gallery import ImageSource, sections, write_images

    if len({run.data for run in runs}) > 1:
        raise InputError(
            f"the runs on {benchmark} measured different data: report them one by one, or without --images"
        )
    sources = [
        ImageSource(run.title, run.folder, run.benchmark(), lambda run=run: run.reopen(device))  # type: ignore[misc]
        for run in runs
    ]
    parts = sections(sources, count)
    if not parts:
        click.echo(f"{benchmark} has no images to show", err=True)
        return None
    page = folder / f"images-{benchmark}.html"
    about = "In this order: " + "; ".join(run.title for run in runs) if len(runs) > 1 else runs[0].title
    write_images(page, f"{benchmark}: images", about, parts)
    return page
