"""All methods side by side: what each makes of the same scenes and photos, and what each brings with and without TTD.

    python -m experiments.methods --out methods.png --photos photos/ --tags dog --tags grass --proxy-model DINO,SAM
    python -m experiments.methods --table methods.md --count 100 --adapter none --adapter mini+ttd

`mini` knows no photographs: there the layout is the point. Methods with a second backbone are shown where one is named.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from PIL import Image

import ttd
from experiments.command import Experiment
from experiments.report import dense_row
from ttd.data.listing import list_images
from ttd.encoders.methods import find_method, known_methods
from ttd.errors import InputError
from ttd.files.writing import whole_file
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes import Scenes
from ttd.scenes.scene import example_scenes
from ttd.scenes.write import write_tagmask
from ttd.viz.figures import titled
from ttd.viz.overlays import bounded, label_overlay, save_png, side_by_side, stack

SIDE = 220
Row = tuple[Image.Image, Sequence[str]]


def figure(models: dict[str, TTD], rows: Sequence[Row]) -> Image.Image:
    """One row per image: the image, then for each model the best of the names at every pixel.

    Args:
        models: by the title of their column.
        rows: images and names.
    """
    page = []
    for image, names in rows:
        panels = [titled(bounded(image, SIDE, enlarge=True), ", ".join(names))]
        for title, model in models.items():
            labels = model.segment(image, names, Options(background=None)).label_map
            drawn = label_overlay(image, labels, names, background=False, legend=0, side=SIDE, enlarge=True)
            panels.append(titled(drawn, title))
        page.append(side_by_side(panels))
    return stack(page)


SHOWN = ("mIoU, words that are there", "AUC per image", "AUC per word", "s_pixel F1", "CaptionIoU")


def brought(
    model: str, adapters: Sequence[str], proxy_model: str | None, folder: Path
) -> dict[str, list[dict[str, float]]]:
    """The numbers of each method, for each adapter ("none": the model alone), on a set of scenes."""
    names = [name for name in _names(proxy_model) if name != "cliptrase-voc20"]  # that is for one data set
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for adapter in adapters:
        for name, rows in found.items():
            rows.append(dense_row(_model(model, adapter, name, proxy_model), folder, all_words=False))
            click.echo(f"{name}, {adapter}: {rows[-1]}", err=True)
    return found


def to_markdown(found: Mapping[str, Sequence[Mapping[str, float]]], adapters: Sequence[str]) -> str:
    """A row for each method; each cell holds one number for each adapter."""
    lines = [
        f"Each cell: {' / '.join(adapters)}.",
        "",
        "| | " + " | ".join(SHOWN) + " |",
        "|---" * (len(SHOWN) + 1) + "|",
    ]
    for name, rows in found.items():
        cells = [" / ".join(f"{row[what]:.3f}" for row in rows) for what in SHOWN]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _names(proxy_model: str | None) -> list[str]:
    """The methods whose second backbones are named."""
    return [one.name for one in known_methods() if one.served_by(proxy_model)]


def _model(model: str, adapter: str | None, name: str, proxy_model: str | None) -> TTD:
    second = proxy_model if find_method(name).second_backbone is not None else None
    return ttd.load(model, adapter=None if adapter == "none" else adapter, method=name, proxy_model=second)


@click.command(cls=Experiment)
@click.option("--model", default="mini", show_default=True, help="As for ttd segment.")
@click.option("--adapter", "adapters", multiple=True, default=("none",), help="As for ttd compare; the figure has one.")
@click.option("--proxy-model", metavar="NAME", help="DINO,SAM: shows proxyclip and trident too.")
@click.option("--scenes", default=5, show_default=True, help="How many scenes.")
@click.option(
    "--photos", type=click.Path(path_type=Path), help="A folder of photos, of which the first five are shown."
)
@click.option("--tags", multiple=True, help="What photos are asked for; repeatable.")
@click.option("--count", type=click.IntRange(2), default=100, show_default=True, help="Scenes of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="The figure, a PNG file.")
@click.option("--table", type=click.Path(path_type=Path), help="The table, a Markdown file.")
def methods(
    model: str,
    adapters: tuple[str, ...],
    proxy_model: str | None,
    scenes: int,
    photos: Path | None,
    tags: tuple[str, ...],
    count: int,
    out: Path | None,
    table: Path | None,
) -> None:
    """Draw what every method makes of the same scenes and photos, or measure it on scenes of the test split."""
    if out is None and table is None:
        raise InputError("nothing is asked for: name a PNG file with --out, or a Markdown file with --table")
    if out is not None and len(adapters) > 1:
        raise InputError("the figure shows one adapter: give --adapter once, or --table")
    if photos is not None and not tags:
        raise InputError("--photos needs --tags: what to look for in them")
    if table is not None:
        with tempfile.TemporaryDirectory() as folder:
            write_tagmask(Scenes("test"), count, Path(folder) / "scenes")
            found = brought(model, adapters, proxy_model, Path(folder) / "scenes")
        with whole_file(table) as part:
            part.write_text(to_markdown(found, adapters), "utf-8")
        click.echo(f"wrote {table}", err=True)
    if out is None:
        return
    columns = {method: _model(model, adapters[0], method, proxy_model) for method in _names(proxy_model)}
    rows: list[Row] = [
        (Image.fromarray(scene.image), scene.labels) for scene, _ in zip(example_scenes(1), range(scenes), strict=False)
    ]
    if photos is not None:
        rows += [(read_image(path), tags) for path in list_images(photos).files[:5]]
    save_png(figure(columns, rows), out)
    click.echo(f"wrote {out}", err=True)


if __name__ == "__main__":
    methods(prog_name="python -m experiments.methods")
