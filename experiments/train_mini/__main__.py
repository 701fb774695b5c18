"""Trains `mini` from nothing; the same call continues an interrupted run.

python -m experiments.train_mini --out runs/mini
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from experiments.command import Experiment
from experiments.train_mini.export import export_run
from experiments.train_mini.training import BRIEF, ClipTrainer, Loss, Recipe
from ttd.cli.output import run_folder, start_logging
from ttd.errors import InputError
from ttd.registry import DEVICES


@click.command(cls=Experiment)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The run: checkpoint, log, model.",
)
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the scenes and of the start.")
@click.option("--loss", type=click.Choice(["clip", "siglip"]), default="clip", show_default=True, help="Whose.")
@click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps between checkpoints.")
@click.option("--brief", is_flag=True, help="A tiny run of the same kind, to try the machinery.")
def train_mini(
    out: Path, device: str, threads: int | None, seed: int, loss: Loss, save_every: int, brief: bool
) -> None:
    """Train `mini` from nothing and write it to OUT/model. The same call continues an interrupted run."""
    start_logging(verbose=True)
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = replace(BRIEF if brief else Recipe(), seed=seed, loss=loss)
    if (out / "model").exists():
        raise InputError(f"{out / 'model'} is finished: choose another --out or remove it.")
    run_folder(out)
    trainer = ClipTrainer(recipe, out, device)
    trainer.train(save_every=save_every)
    export_run(out, out / "model", recipe.steps * recipe.batch)
    click.echo(f"The model is in {out / 'model'}: ttd.load({str(out / 'model')!r})")


if __name__ == "__main__":
    train_mini(prog_name="python -m experiments.train_mini")
