"""All methods side by side: what each makes of the same scenes and photos.

    python -m experiments.methods --out methods.png --photos photos/ --tags dog grass sky --proxy-model DINO,SAM

`mini` knows no photographs: there the layout is the point. Methods with a second backbone are shown where one is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from PIL import Image

import ttd
from experiments.command import Experiment
from ttd.data.listing import list_images
from ttd.encoders.methods import known_methods
from ttd.errors import InputError
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes.scene import example_scenes
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


@click.command(cls=Experiment)
@click.option("--model", default="mini", show_default=True, help="As for ttd segment.")
@click.option("--adapter", help="As for ttd segment.")
@click.option("--proxy-model", metavar="NAME", help="DINO,SAM: shows proxyclip and trident too.")
@click.option("--scenes", default=5, show_default=True, help="How many scenes.")
@click.option(
    "--photos", type=click.Path(path_type=Path), help="A folder of photos, of which the first five are shown."
)
@click.option("--tags", multiple=True, help="What photos are asked for; repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A PNG file.")
def methods(
    model: str,
    adapter: str | None,
    proxy_model: str | None,
    scenes: int,
    photos: Path | None,
    tags: tuple[str, ...],
    out: Path,
) -> None:
    """Draw what every method makes of the same scenes and photos."""
    if photos is not None and not tags:
        raise InputError("--photos needs --tags: what to look for in them")
    columns = {}
    for method in known_methods():
        if method.second_backbone is not None and proxy_model is None:
            continue
        second = None if method.second_backbone is None else _second(method.name, str(proxy_model))
        columns[method.name] = ttd.load(model, adapter=adapter, method=method.name, proxy_model=second)
    rows: list[Row] = [
        (Image.fromarray(scene.image), scene.labels) for scene, _ in zip(example_scenes(1), range(scenes), strict=False)
    ]
    if photos is not None:
        rows += [(read_image(path), tags) for path in list_images(photos).files[:5]]
    save_png(figure(columns, rows), out)
    click.echo(f"wrote {out}", err=True)


def _second(name: str, proxy_model: str) -> str:
    return proxy_model if name == "trident" else proxy_model.partition(",")[0]


if __name__ == "__main__":
    methods(prog_name="python -m experiments.methods")
