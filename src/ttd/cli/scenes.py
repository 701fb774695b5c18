"""`ttd scenes`: write the embedded world to disk, train its model, report what the model does."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ttd.cli.options import DEVICE_OPTION, start_logging
from ttd.cli.output import run_folder
from ttd.errors import InputError
from ttd.registry import DEVICES


@click.group()
def scenes() -> None:
    """The embedded world of drawn scenes and its model `mini`."""


@scenes.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "form", type=click.Choice(["shards", "tagmask"]), default="shards", show_default=True)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="train", show_default=True)
@click.option("--count", type=click.IntRange(1), default=1000, show_default=True, help="How many scenes.")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="Number of the first.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another world of the same kind.")
@click.option("--per-shard", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--hold-out-nouns", metavar="A,B,...", default="", help="Nouns that must not be drawn.")
@click.option("--style", "styles", multiple=True, help="Draw in this style only (openmoji, noto); repeatable.")
@click.option(
    "--captions", type=click.IntRange(1), default=1, show_default=True, help="shards: captions of each scene."
)
@click.option(
    "--wrong-percent", type=click.IntRange(0, 100), default=0, help="shards: this share has another scene's captions."
)
def write(
    folder: Path,
    form: str,
    split: str,
    count: int,
    start: int,
    seed: int,
    per_shard: int,
    hold_out_nouns: str,
    styles: tuple[str, ...],
    captions: int,
    wrong_percent: int,
) -> None:
    """Write scenes into FOLDER: tar shards (.png .txt .json) or a TagMask set with masks."""
    from ttd.scenes import NOUNS, STYLES, Scenes
    from ttd.scenes.write import write_shards, write_tagmask

    held = {noun.strip() for noun in hold_out_nouns.split(",") if noun.strip()}
    if held - set(NOUNS):
        raise InputError(f"The world has no noun {', '.join(sorted(held - set(NOUNS)))}: see `ttd scenes words`.")
    nouns = tuple(noun for noun in NOUNS if noun not in held)
    world = Scenes(split, seed, nouns=nouns, styles=styles or STYLES)
    if form == "tagmask" and (captions > 1 or wrong_percent):
        raise InputError("A TagMask set has one true caption a scene: leave out --captions and --wrong-percent.")
    run_folder(folder)
    if form == "shards":
        write_shards(world, count, folder, per_shard, start, captions=captions, wrong_percent=wrong_percent)
    else:
        write_tagmask(world, count, folder, start)
    click.echo(f"{count} scenes of the {split} split in {folder}")


@scenes.command()
def words() -> None:
    """List the words that the world knows, with what kind of thing each is."""
    from ttd.scenes import BACKGROUNDS, CATEGORIES

    for noun, kind in CATEGORIES.items():
        click.echo(f"{noun}\t{kind}")
    for name in BACKGROUNDS:
        click.echo(f"{name}\tbackground")


@scenes.command("train-clip")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The run: checkpoint, log, model.",
)
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help=f"{', '.join(DEVICES)} or cuda:1.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's choice by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save-every", type=click.IntRange(1), default=250, show_default=True, help="Steps between checkpoints.")
@click.option("--brief", is_flag=True, help="A tiny run of the same kind, to try the machinery.")
def train_clip(out: Path, device: str, threads: int | None, seed: int, save_every: int, brief: bool) -> None:
    """Train `mini` from nothing and write it to OUT/model. The same call continues an interrupted run."""
    import torch

    from ttd.scenes.clip_training import BRIEF, ClipTrainer, Recipe
    from ttd.scenes.export import export_run

    start_logging(verbose=True)
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = BRIEF if brief else Recipe(seed=seed)
    if (out / "model").exists():
        raise InputError(f"{out / 'model'} is finished: choose another --out or remove it.")
    run_folder(out)
    trainer = ClipTrainer(recipe, out, device)
    trainer.train(save_every=save_every)
    export_run(out, out / "model", recipe.steps * recipe.batch)
    click.echo(f"The model is in {out / 'model'}: ttd.load({str(out / 'model')!r})")


@scenes.command()
@click.option("--model", default="mini", show_default=True, help="Name or folder.")
@click.option("--adapter", help="A TTD adapter: adds the column after training.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Tables, JSON, images.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--count", type=click.IntRange(256), default=1024, show_default=True, help="How many scenes.")
@DEVICE_OPTION
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON on stdout.")
def report(
    model: str, adapter: str | None, out: Path, split: str, count: int, device: str | None, as_json: bool
) -> None:
    """Measure a model on scenes it has never seen: is it a CLIP, has it single tag bias, how well does it localise."""
    import ttd
    from ttd.scenes.report import measure, to_markdown, write_report

    models = {"before": ttd.load(model, device=device)}
    if adapter is not None:
        models["after training"] = ttd.load(model, adapter=adapter, device=device)
    columns = {title: measure(one.encoder, split, count) for title, one in models.items()}
    about = f"Model {model}{f' with adapter {adapter}' if adapter else ''}, {count} scenes of the {split} split."
    write_report(columns, models, about, out, split)
    click.echo(json.dumps(columns, indent=1) if as_json else to_markdown(columns, about))
    click.echo(f"report.md, report.json and images are in {out}", err=True)


@scenes.command()
@click.option("--model", default="mini", show_default=True, help="Name or folder.")
@click.option("--adapter", help="A TTD adapter.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--count", type=click.IntRange(1), default=30, show_default=True, help="How many scenes.")
@click.option("--threshold", type=click.FloatRange(0.0, 1.0), help="Of the background; by default the model's.")
@DEVICE_OPTION
def background(
    model: str, adapter: str | None, split: str, count: int, threshold: float | None, device: str | None
) -> None:
    """Measure how much of the background is found when 3, 20, 80 and 160 nouns are asked for."""
    import ttd
    from ttd.cli.output import table
    from ttd.scenes import Scenes
    from ttd.scenes.background_recall import background_rows

    world = Scenes(split)
    rows = background_rows(
        ttd.load(model, adapter=adapter, device=device), [world[i] for i in range(count)], threshold=threshold
    )
    head = ("rule", "nouns asked", "background found", "objects found", "called background", "truly")
    numbers = [(r.background, r.objects, r.share, r.truth) for r in rows]
    cells = [(r.rule, str(r.asked), *(f"{n:.2f}" for n in one)) for r, one in zip(rows, numbers, strict=True)]
    click.echo(table(head, cells))


@scenes.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Runs and tables.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="How often each training is done.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes, one thread each.")
@click.option("--run", "names", multiple=True, metavar="NAME", help="Only this training; repeatable.")
@click.option("--brief", is_flag=True, help="A tiny proof of the same kind, to try the machinery.")
def prove(out: Path, seeds: int, workers: int, names: tuple[str, ...], brief: bool) -> None:
    """Train and measure all that the paper's tables compare, before and after TTD, beside honest controls.

    The same call goes on where it stopped. Writes OUT/proof.md, OUT/tables.json and every adapter.
    """
    from ttd.scenes.proof.plan import RUNS
    from ttd.scenes.proof.tables import write_tables
    from ttd.scenes.proof.work import Size
    from ttd.scenes.proof.work import prove as work

    start_logging(verbose=False)
    known = [run.name for run in RUNS]
    if unknown := sorted(set(names) - set(known)):
        raise InputError(f"There is no run {', '.join(unknown)}: choose from {', '.join(known)}.")
    size = Size(steps=4, pairs=320, test=256, validation=64) if brief else Size()
    chosen = [run for run in RUNS if not names or run.name in names]
    run_folder(out)
    work(out, size, runs=chosen, seeds=range(seeds), workers=workers)
    click.echo(write_tables(out))
    click.echo(f"proof.md and tables.json are in {out}", err=True)
