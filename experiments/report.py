"""What the embedded model must show, measured on scenes it has never seen: tables, JSON and images.

python -m experiments.report --out runs/report
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from tqdm import tqdm

import ttd
from experiments.command import Experiment
from experiments.prove.measured import AMONG, noun_hits, retrieval_hits
from ttd.cli.options.model import DEVICE_OPTION
from ttd.encoders.base import Encoder
from ttd.evaluation.datasets.tagmask import TagMaskSet, read_tagmask
from ttd.evaluation.metrics import mean_of_known
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.report.formats import markdown_table
from ttd.evaluation.runner import Measurements, measure_all
from ttd.evaluation.tasks.tag_tables import EVERY_NOUN, SHUFFLED, Cut
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.files import write_file
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scenes.nouns import BACKGROUNDS, NOUNS
from ttd.scenes.scene import Scene, Scenes
from ttd.scenes.write import write_tagmask
from ttd.viz.figures import best_word_image, heading, heatmap_panels, score_plot
from ttd.viz.overlays import save_png, side_by_side, stack

GATE = {"mIoU, words that are there": 0.45, "s_pixel F1": 0.85, "AUC per image": 0.90, "AUC per word": 0.90}
"""What a model must reach before TTD is tried on it."""

CUT = Cut("norm", 0.5)
"""How captions' masks are made."""
METHODS = ("maskclip", "sclip", "clearclip", "naclip", "values", "gem", "sc-clip", "clip-surgery", "cliptrase")
"""Those that need no second backbone."""

Results = dict[str, Any]


def measure(model: TTD, folder: Path, split: str = "test", methods: Sequence[str] = METHODS) -> Results:
    """Everything the report says about one model.

    Args:
        model: any.
        folder: a set that `ttd scenes write --format tagmask --split SPLIT` wrote.
        split: of scenes with one object, by which nouns are told apart.
        methods: that are compared, for an encoder that takes one.
    """
    data = _read(folder)
    found = measure_all(model, TagMask(data, Options(), Options(), cuts=[CUT]))
    rows = {row.pop("tagger"): row for row in found.result().rows["tags"]}
    shuffled = {name.removesuffix(SHUFFLED): row for name, row in rows.items() if name.endswith(SHUFFLED)}
    if model.encoder.method is None:
        dense = {model.encoder.kind: dense_row(model, folder)}
    else:
        names = tqdm(methods, desc="methods", disable=None)
        dense = {name: dense_row(TTD(_with_method(model.encoder, name)), folder) for name in names}
    return {
        "clip": {**retrieval(model, data), "noun accuracy": float(noun_hits(model, split, len(data.rows)).mean())},
        "tags": {name: row for name, row in rows.items() if not name.endswith(SHUFFLED)},
        "tags, images shuffled": {**shuffled, EVERY_NOUN: rows[EVERY_NOUN]},
        "caption": captions(found, data),
        "methods": dense,
    }


def _read(folder: Path) -> TagMaskSet:
    """The set; AUC is about the nouns of the world."""
    return replace(read_tagmask(folder), vocabulary=NOUNS)


def _with_method(encoder: Encoder, name: str) -> Encoder:
    return encoder if name == encoder.method_name else encoder.with_method(name)


def captions(found: Measurements, data: TagMaskSet) -> dict[str, dict[str, float]]:
    """The caption's map scaled to 0..1 and cut at 0.5, over all captions and over those that name objects only."""
    of_objects = {row.sample.id for row in data.rows if not row.true & set(BACKGROUNDS)}
    parts = {"all": found.result(), "objects only": found.result(lambda record: record["id"] in of_objects)}
    rows = {}
    for name, result in parts.items():
        (row,) = result.rows["cuts"]
        overlaps = {measure: row[measure] for measure in ("CaptionIoU", "mFPR", "mFNR")}
        rows[name] = {**overlaps, "whole image IoU": result.numbers["whole image IoU"]}
    return rows


def retrieval(model: TTD, data: TagMaskSet) -> dict[str, float]:
    """Share of images that find their own caption among up to 256 by the pooled embedding, and of captions likewise.

    Fewer scenes are told apart more easily: compare rows of equal counts, or of 256 and more."""
    hits = retrieval_hits(model, data, min(AMONG, len(data.rows)))
    return {name: mean_of_known(values) for name, values in hits.items()}


def dense_row(model: TTD, folder: Path, *, all_words: bool = True) -> dict[str, float]:
    """One row of the table of methods; without `all_words` scenes are labelled by the words that are there alone."""
    data, row = _read(folder), {}
    asked = {"mIoU, words that are there": True, **({"mIoU, all words": False} if all_words else {})}
    for title, known in asked.items():
        benchmark = open_benchmark("folder", folder, Choices("default", known_classes=known), model.encoder)
        row[title] = measure_all(model, benchmark).result().numbers["mIoU"]
    found = measure_all(model, TagMask(data, Options(), Options(), scores=("s_pixel",), shuffled=False, cuts=[CUT]))
    numbers, masks = found.result().numbers, captions(found, data)
    return {
        **row,
        **{name: numbers[name] for name in ("AUC per image", "AUC per word")},
        "s_pixel F1": numbers["s_pixel: F1"],
        "s_pixel mAP": numbers["s_pixel: mAP"],
        "CaptionIoU": masks["all"]["CaptionIoU"],
        "CaptionIoU, objects only": masks["objects only"]["CaptionIoU"],
    }


def gate(methods: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Which parts of `GATE` each method misses; an empty list is a pass."""
    return {name: [part for part, least in GATE.items() if row[part] < least] for name, row in methods.items()}


def to_markdown(columns: Mapping[str, Results], about: str) -> str:
    """The tables, one group of columns for each measured model (before, after training)."""
    lines = ["# What the model does on scenes", "", about, ""]
    for title, results in columns.items():
        lines += [f"## {title}", ""]
        lines += ["### It is a CLIP", "", *_table({"pooled embedding": results["clip"]}), ""]
        lines += [
            "### Single tag bias in tag selection (the form of Table 2b)",
            "",
            *_table(results["tags"]),
            "",
        ]
        lines += ["The same words scored on another scene's image: what the text alone achieves", ""]
        lines += [*_table(results["tags, images shuffled"]), ""]
        lines += ["### The caption's map against the union mask (the form of Table 3)", ""]
        lines += [*_table(results["caption"]), ""]
        lines += ["### Methods", "", *_table(results["methods"]), ""]
        misses = [f"- {name}: {'pass' if not missed else 'below in ' + ', '.join(missed)}"
                  for name, missed in gate(results["methods"]).items()]  # fmt: skip
        lines += [
            "Gate: " + ", ".join(f"{part} at least {least}" for part, least in GATE.items()) + ".",
            "",
            *misses,
            "",
        ]
    return "\n".join(lines)


def _table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    names = list(next(iter(rows.values())))
    cells = [(row, *(f"{values[name]:.3f}" for name in names)) for row, values in rows.items()]
    return [markdown_table(("", *names), ("---", *["---:"] * len(names)), cells)]


def write_report(
    columns: Mapping[str, Results], models: Mapping[str, TTD], about: str, folder: Path, split: str
) -> None:
    """Writes `report.json`, `report.md` and the images in the form of the paper's Figures 1 and 2."""
    write_file(folder / "report.json", json.dumps(columns, indent=1) + "\n")
    write_file(folder / "report.md", to_markdown(columns, about) + "\n")
    for number, scene in enumerate(rich_scenes(split, 4)):
        save_png(figure_1(models, scene), folder / f"figure1-{number}.png")
        save_png(figure_2(models, scene), folder / f"figure2-{number}.png")


def rich_scenes(split: str, count: int) -> list[Scene]:
    """The first scenes whose captions name three or more things that are there, the background among them."""
    world, found, index = Scenes(split), list[Scene](), 0
    while len(found) < count:
        scene = world[index]
        if len(scene.true_words) >= 3 and scene.background in scene.true_words:
            found.append(scene)
        index += 1
    return found


def figure_1(models: Mapping[str, TTD], scene: Scene) -> Image.Image:
    """Figure 1: (a) the caption's map beside the words' maps, (b) every word against the pooled image."""
    image, rows = Image.fromarray(scene.image), []
    words = sorted(scene.true_words)
    for title, model in models.items():
        seen = model.encode(image)
        maps = dict(zip(("caption", *words), model.heatmaps(seen, [scene.caption, *words]), strict=True))
        maps = {"truth": scene.union_mask.astype(np.float32), **maps}
        tagging = model.tag(seen, scene.caption, selection="s_image")
        plot = score_plot(tagging.distinct(), name="s_image", gap=False)
        rows += [heading(f"{title}: {scene.caption}", 600), heatmap_panels(image, maps), plot]
    return stack(rows)


def figure_2(models: Mapping[str, TTD], scene: Scene) -> Image.Image:
    """Figure 2 and 4a: the most similar word of every pixel, and the words sorted by s_pixel with the gap."""
    image, rows = Image.fromarray(scene.image), []
    for title, model in models.items():
        seen = model.encode(image)
        tagging = model.tag(seen, scene.caption)
        words = [word.text for word in tagging.distinct()]
        best = model.similarity(seen, words).argmax(0).cpu().numpy()
        pair = [best_word_image(image, best, words, side=400), score_plot(tagging.distinct())]
        rows += [heading(f"{title}: {scene.caption}", 600), side_by_side(pair)]
    return stack(rows)


@click.command(cls=Experiment)
@click.option("--model", default="mini", show_default=True, help="Name or folder.")
@click.option("--adapter", help="A TTD adapter: adds the column after training.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Tables, JSON, images.")
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--count", type=click.IntRange(16), default=1024, show_default=True, help="How many scenes.")
@DEVICE_OPTION
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON on stdout.")
def report(
    model: str, adapter: str | None, out: Path, split: str, count: int, device: str | None, as_json: bool
) -> None:
    """Measure a model on scenes it has never seen: is it a CLIP, has it single tag bias, how well does it localise."""
    models = {"before": ttd.load(model, device=device)}
    if adapter is not None:
        models["after training"] = ttd.load(model, adapter=adapter, device=device)
    write_tagmask(Scenes(split), count, out / "scenes")
    columns = {title: measure(one, out / "scenes", split) for title, one in models.items()}
    about = f"Model {model}{f' with adapter {adapter}' if adapter else ''}, {count} scenes of the {split} split."
    write_report(columns, models, about, out, split)
    click.echo(json.dumps(columns, indent=1) if as_json else to_markdown(columns, about))
    click.echo(f"report.md, report.json and images are in {out}", err=True)


if __name__ == "__main__":
    report(prog_name="python -m experiments.report")
