"""`ttd scenes`: write the synthetic scenes to disk, list its words, measure the background there."""

from __future__ import annotations

from pathlib import Path

import click

from ttd.cli.options.model import DEVICE_OPTION
from ttd.cli.output import run_folder
from ttd.errors import InputError


@click.group()
def scenes() -> None:
    """The synthetic scenes of drawn scenes, which the model `mini` knows."""


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
