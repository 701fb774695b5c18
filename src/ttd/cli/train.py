"""`ttd train` and `ttd merge`: from pairs to an adapter, from an adapter to a plain model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click

from ttd.cli.errors import Terminated
from ttd.cli.options import VERBOSE_OPTION
from ttd.cli.options.model import METHOD_OPTION
from ttd.cli.output import start_logging

# Option -> the place in the config that it sets.
_SHORT = {
    "model": "model.name",
    "method": "model.method",
    "keep": "data.keep",
    "tags": "data.tags",
    "steps": "optimiser.steps",
    "seed": "run.seed",
    "deterministic": "run.deterministic",
}


@click.command()
@click.argument("data", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the run.")
@click.option(
    "--config",
    "source",
    metavar="NAME",
    help="paper, scenes-paper, scenes-negatives, or a TOML file; by default the paper's recipe.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.NAME=VALUE", help="Change one value; repeatable.")
@click.option("--model", metavar="NAME", help="Base model: short name, hub id, folder or file.")
@METHOD_OPTION
@click.option("--keep", metavar="FILE", help="Keep-list of `ttd prune`.")
@click.option("--tags", metavar="PATH", help="Train on words of `ttd data tag`: a path, or inside (the shards).")
@click.option("--steps", type=click.IntRange(1), help="End after so many steps.")
@click.option("--seed", type=click.IntRange(0), help="Of order, augmentation and start.")
@click.option("--deterministic", is_flag=True, default=None, help="Deterministic algorithms only.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be trained and how long it takes (5 steps are tried), and write nothing.",
)
@click.option("--push-to-hub", "repo", metavar="USER/NAME", help="At the end put the adapter on the hub.")
@VERBOSE_OPTION
def train(
    data: tuple[str, ...],
    out: Path,
    source: str | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    repo: str | None,
    verbose: bool,
    **short: object,
) -> int:
    """Fine-tune a model with TTD on image-text pairs; OUT becomes a LoRA adapter for --adapter.

    DATA are tar shards (brace ranges too), folders or captions files. The same command resumes where a run
    stopped. Ctrl-C saves and leaves.

    \b
    ttd scenes write scenes --count 9600
    ttd train scenes --config scenes-paper --out runs/paper
    ttd tag image.png "a dog on grass" --adapter runs/paper
    """
    start_logging(verbose)
    from ttd.runs import Ranks, command_line
    from ttd.training.config import read_config
    from ttd.training.distributed import Stopped
    from ttd.training.trainer import train as run

    settings = [f"{_SHORT[name]}={_toml(value)}" for name, value in short.items() if value is not None]
    if short["tags"]:
        settings.append('choice.by="given"')
    if data:
        settings.append(f"data.sources={_toml(list(data))}")
    config = read_config(source, [*settings, *overrides])
    if dry_run:
        from ttd.training.dry_run import STEPS, plan

        click.echo(str(plan(config, STEPS)))
        return 0
    rank = Ranks.here().rank
    pushes = repo is not None and rank == 0
    if pushes:
        from ttd.training.export import check_hub, push_to_hub

        check_hub(str(repo))
    try:
        finished = run(config, out, command=command_line())
    except Stopped as stopped:
        raise (KeyboardInterrupt() if stopped.number == signal.SIGINT else Terminated()) from None
    if pushes:
        click.echo(push_to_hub(out, str(repo)), err=True)
    click.echo(str(out))
    # Under torchrun any code but 0 is a crash.
    return int(finished.damaged > 0 and finished.world == 1)


@click.command()
@click.option("--model", default="mini", show_default=True, metavar="NAME", help="The adapter's base.")
@click.option("--adapter", required=True, metavar="PATH", help="Folder of `ttd train`, or a hub id.")
@click.option("--adapter-scale", type=click.FloatRange(0.0, 1.0), default=1.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write.")
def merge(model: str, adapter: str, adapter_scale: float, out: Path) -> None:
    """Write base and adapter as one plain model: a Hugging Face folder, for TCL safetensors in its own names."""
    from ttd.training.export import merge as write

    click.echo(str(write(model, adapter, out, scale=adapter_scale)))


def _toml(value: object) -> str:
    """A value as TOML, which JSON is for texts, numbers, booleans and lists of them."""
    return json.dumps(value)
