"""Captions' masks on five test scenes: the truth, before training, and after the trainings of some rows.

python -m experiments.prove.figure runs/proof --row paper-10.values-1 --out proof-scenes.jpg
"""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import ttd
from experiments.command import Experiment
from experiments.prove.rows import Row
from ttd.errors import InputError
from ttd.evaluation.metrics import overlap
from ttd.files import whole_file
from ttd.model import TTD
from ttd.scenes.scene import Scene, Scenes
from ttd.viz.overlays import mask_overlay

COUNT = 5
_SIDE = 1.9  # inches of a panel


def shown_scenes(count: int = COUNT) -> list[Scene]:
    """The first test scenes whose captions name two true things or more."""
    world, found, number = Scenes("test"), list[Scene](), 0
    while len(found) < count:
        scene = world[number]
        found += [scene] if len(scene.true_words) > 1 else []
        number += 1
    return found


def draw(models: dict[str, tuple[TTD, float]], scenes: list[Scene], path: Path) -> None:
    """A row for each scene: image, truth, and the caption's mask of every model with its IoU.

    Args:
        models: by title, each with the threshold of p that was chosen for it.
        scenes: to show.
        path: of a PNG or JPEG.
    """
    columns = 2 + len(models)
    figure, axes = plt.subplots(
        len(scenes), columns, figsize=(columns * _SIDE, len(scenes) * (_SIDE + 0.45)), squeeze=False
    )
    for row, scene in zip(axes, scenes, strict=True):
        image = Image.fromarray(scene.image)
        row[0].set_title(scene.caption, fontsize=7, wrap=True)
        row[0].imshow(image)
        row[1].imshow(mask_overlay(image, scene.union_mask))
        row[1].set_title("truth: " + ", ".join(sorted(scene.true_words)), fontsize=7, wrap=True)
        for axis, (title, (model, threshold)) in zip(row[2:], models.items(), strict=True):
            mask = model.caption_mask(scene.image, scene.caption, threshold=threshold)
            axis.imshow(mask_overlay(image, np.asarray(mask)))
            axis.set_title(f"{title}\nIoU {overlap(mask, scene.union_mask).iou:.2f}", fontsize=7)
        for axis in row:
            axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    with whole_file(path) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=110)
    plt.close(figure)


@click.command(cls=Experiment)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--row", "names", multiple=True, required=True, metavar="RUN-SEED", help="As its file is named.")
@click.option("--model", default="mini", show_default=True, help="The base of FOLDER.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A .png or .jpg.")
def main(folder: Path, names: tuple[str, ...], model: str, out: Path) -> None:
    """Draw captions' masks before and after the trainings of some rows of a proof in FOLDER, all by one last block."""
    if out.suffix not in (".png", ".jpg"):
        raise InputError(f"--out is a .png or .jpg, not {out.name}")
    rows = [Row.read(folder / "rows" / f"{name}.json") for name in names]
    if len(methods := {row.method for row in rows}) > 1:
        raise InputError(f"these rows are of several last blocks, {', '.join(sorted(methods))}: name rows of one")
    base = Row.read(folder / "rows" / f"base.{rows[0].method}.json")
    models = {"before training": (ttd.load(model, method=base.method), base.numbers["threshold of p"])}
    for name, row in zip(names, rows, strict=True):
        adapted = ttd.load(model, method=row.method, adapter=str(folder / "runs" / name))
        models[name] = (adapted, row.numbers["threshold of p"])
    draw(models, shown_scenes(), out)
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main(prog_name="python -m experiments.prove.figure")
