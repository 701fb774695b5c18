"""All methods side by side: what each makes of the same scenes and photos, and what each brings with and without TTD.

    python -m experiments.methods --out methods.jpg --proxy-model random --photo gull.jpg "sky, sea, seagull"
    python -m experiments.methods --table methods.md --count 100 --adapter none --adapter mini+ttd

`mini` knows no photographs: there the layout is the point. Methods with a second backbone are shown where one is named;
`random` is a small DINO and a small SAM of random weights, whose patches say nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev

import click
import torch
from PIL import Image
from transformers import SamConfig, SamModel, ViTConfig, ViTModel

import ttd
from experiments.command import Experiment
from experiments.report import dense_row
from ttd.encoders.methods import find_method, known_methods
from ttd.errors import InputError
from ttd.evaluation.report.formats import markdown_table
from ttd.files.writing import whole_file, write_file
from ttd.images import read_image
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes import Scenes
from ttd.scenes.scene import example_scenes
from ttd.scenes.write import write_tagmask
from ttd.viz.figures import titled
from ttd.viz.overlays import bounded, class_colours, label_overlay, side_by_side, stack
from ttd.viz.typography import Chip, paragraph

SIDE = 150
Row = tuple[Image.Image, Sequence[str]]


def figure(models: Mapping[str, TTD], columns: Sequence[Row]) -> Image.Image:
    """A column for each image: itself, its names in their colours, then the best of them at every pixel by each model.

    Args:
        models: by the title of their row.
        columns: images and names.
    """
    shown, words = [], []
    for image, names in columns:
        shown.append(bounded(image, SIDE, enlarge=True))
        colours = [tuple(int(value) for value in colour) for colour in class_colours(len(names))]
        chips = [Chip(name, (r, g, b)) for name, (r, g, b) in zip(names, colours, strict=True)]
        words.append(paragraph(chips, shown[-1].width, size=12))
    page = [side_by_side(shown), side_by_side(words)]
    for title, model in models.items():
        panels = []
        for image, names in columns:
            labels = model.segment(image, names, Options(background=None)).label_map
            panels.append(label_overlay(image, labels, names, background=False, legend=0, side=SIDE, enlarge=True))
        page.append(titled(side_by_side(panels), title))
    return stack(page)


def random_backbones(folder: Path) -> str:
    """The names of a small DINO and a small SAM of random weights, written to the folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    dino = ViTModel(ViTConfig(**sizes, intermediate_size=96, patch_size=8, image_size=64), add_pooling_layer=False)
    sam = SamModel(SamConfig(vision_config={**sizes, "mlp_dim": 96, "image_size": 512, "global_attn_indexes": [1]}))
    for name, one in {"dino": dino, "sam": sam}.items():
        for parameter in one.parameters():
            if parameter.ndim > 1:  # larger than transformers makes them, so that patches differ
                torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
        one.save_pretrained(folder / name)
    return f"{folder / 'dino'},{folder / 'sam'}"


SHOWN = ("mIoU, words that are there", "AUC per image", "AUC per word", "s_pixel F1", "CaptionIoU")


def brought(
    model: str, adapters: Sequence[str], proxy_model: str | None, folder: Path
) -> dict[str, list[list[dict[str, float]]]]:
    """The numbers of each method on a set of scenes: for each of `adapters`, a list of what each of its seeds gives.

    Args:
        model: as for ttd segment.
        adapters: "none" (the model alone), an adapter, or those of several seeds with commas between.
        proxy_model: see `Method.served_by`.
        folder: the scenes, as a TagMask set.
    """
    names = [name for name in _names(proxy_model) if name != "cliptrase-voc20"]  # that is for one data set
    found: dict[str, list[list[dict[str, float]]]] = {name: [] for name in names}
    for seeds in adapters:
        for name, rows in found.items():
            every = [_model(model, adapter, name, proxy_model) for adapter in seeds.split(",")]
            rows.append([dense_row(one, folder, all_words=False) for one in every])
            click.echo(f"{name}, {seeds}: {rows[-1]}", err=True)
    return found


def to_markdown(found: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], adapters: Sequence[str]) -> str:
    """A row for each method; a cell holds a number for each of `adapters`, of several seeds mean and deviation."""
    cells = [
        (name, *(" / ".join(_over_seeds([row[what] for row in seeds]) for seeds in rows) for what in SHOWN))
        for name, rows in found.items()
    ]
    table = markdown_table(("", *SHOWN), ["---"] * (len(SHOWN) + 1), cells)
    return f"Each cell: {' / '.join(adapters)}.\n\n{table}\n"


def _over_seeds(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.3f}"


def _names(proxy_model: str | None) -> list[str]:
    """The methods whose second backbones are named."""
    return [one.name for one in known_methods() if one.served_by(proxy_model)]


def _model(model: str, adapter: str | None, name: str, proxy_model: str | None) -> TTD:
    second = proxy_model if find_method(name).second_backbone is not None else None
    return ttd.load(model, adapter=None if adapter == "none" else adapter, method=name, proxy_model=second)


@click.command(cls=Experiment)
@click.option("--model", default="mini", show_default=True, help="As for ttd segment.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    default=("none",),
    help="As for ttd compare; the figure has one. A,B,C: several seeds' mean.",
)
@click.option("--proxy-model", metavar="NAME", help="DINO,SAM or random: shows proxyclip and trident too.")
@click.option("--scenes", default=5, show_default=True, help="How many scenes.")
@click.option(
    "--photo",
    "photos",
    multiple=True,
    type=(click.Path(path_type=Path), str),
    metavar="FILE TAGS",
    help='A photo and what it is asked for, as "sky, sea"; repeatable.',
)
@click.option("--count", type=click.IntRange(2), default=100, show_default=True, help="Scenes of the table.")
@click.option("--out", type=click.Path(path_type=Path), help="The figure, a .png or .jpg.")
@click.option("--table", type=click.Path(path_type=Path), help="The table, a Markdown file.")
def methods(
    model: str,
    adapters: tuple[str, ...],
    proxy_model: str | None,
    scenes: int,
    photos: tuple[tuple[Path, str], ...],
    count: int,
    out: Path | None,
    table: Path | None,
) -> None:
    """Draw what every method makes of the same scenes and photos, or measure it on scenes of the test split."""
    if out is None and table is None:
        raise InputError("nothing is asked for: name a PNG file with --out, or a Markdown file with --table")
    if out is not None and (len(adapters) > 1 or "," in adapters[0]):
        raise InputError("the figure shows one adapter: give --adapter once, or --table")
    if out is not None and out.suffix not in (".png", ".jpg"):
        raise InputError(f"--out is a .png or .jpg, not {out.name}")
    columns: list[Row] = []
    for path, tags in photos:
        names = [name.strip() for name in tags.split(",") if name.strip()]
        if not names:
            raise InputError(f'--photo {path} names no tags: write what to look for behind it, as "sky, sea"')
        columns.append((read_image(path), names))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if proxy_model == "random":
            proxy_model = random_backbones(folder)
        if table is not None:
            write_tagmask(Scenes("test"), count, folder / "scenes")
            found = brought(model, adapters, proxy_model, folder / "scenes")
            write_file(table, to_markdown(found, adapters))
            click.echo(f"wrote {table}", err=True)
        if out is not None:
            examples = islice(example_scenes(1), scenes)
            columns = [(Image.fromarray(one.image), one.labels) for one in examples] + columns
            models = {name: _model(model, adapters[0], name, proxy_model) for name in _names(proxy_model)}
            page = figure(models, columns)
            with whole_file(out) as part:
                page.save(part, format={".png": "PNG", ".jpg": "JPEG"}[out.suffix], quality=80)
            click.echo(f"wrote {out}", err=True)


if __name__ == "__main__":
    methods(prog_name="python -m experiments.methods")
