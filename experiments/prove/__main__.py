"""Trains and measures all that the paper's tables compare; the same call resumes where it stopped.

python -m experiments.prove --out runs/proof
"""

from __future__ import annotations

from pathlib import Path

import click

from experiments.command import Experiment
from experiments.prove.plan import RUNS
from experiments.prove.work import Proof, Size, prove
from ttd.cli.output import run_folder, start_logging
from ttd.errors import InputError


@click.command(cls=Experiment)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data, adapters and rows.")
@click.option("--model", default="mini", show_default=True, help="The base: name or folder.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How often each training is done.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes, one thread each.")
@click.option("--run", "names", multiple=True, metavar="NAME", help="Only this training; repeatable.")
@click.option("--brief", is_flag=True, help="A tiny proof of the same kind, to try the machinery.")
def main(out: Path, model: str, seeds: int, workers: int, names: tuple[str, ...], brief: bool) -> None:
    """Train and measure all that the paper's tables compare, before and after TTD, beside honest controls.

    The same call resumes where it stopped. Writes adapters and OUT/rows, which `python -m experiments.prove.tables`
    reads.
    """
    start_logging(verbose=False)
    known = [run.name for run in RUNS]
    if unknown := sorted(set(names) - set(known)):
        raise InputError(f"There is no run {', '.join(unknown)}: choose from {', '.join(known)}.")
    size = Size(steps=4, pairs=320, test=64, validation=16) if brief else Size()
    chosen = [run for run in RUNS if not names or run.name in names]
    run_folder(out)
    prove(Proof(out, model, size), runs=chosen, seeds=range(seeds), workers=workers)
    click.echo(f"The rows are in {out / 'rows'}.", err=True)


if __name__ == "__main__":
    main(prog_name="python -m experiments.prove")
