"""What the embedded model must show, measured on scenes it has never seen: tables, JSON and images.

python -m experiments.report --out runs/report
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import ttd
from experiments.command import Experiment
from ttd.cli.options import DEVICE_OPTION
from ttd.encoders.base import Encoder
from ttd.encoders.methods import method_names
from ttd.errors import InputError
from ttd.files import whole_file
from ttd.model import TTD
from ttd.scenes.measure import (
    RETRIEVAL_AMONG,
    EncodedScenes,
    caption_masks,
    encode_scenes,
    noun_accuracy,
    present_above_absent,
    retrieval,
    segmentation,
    tag_selection,
)
from ttd.scenes.scene import Scene, Scenes
from ttd.viz.figures import best_word_image, heading, heatmap_panels, score_plot
from ttd.viz.overlays import save_png, side_by_side, stack

GATE = {"mIoU, words that are there": 0.45, "s_pixel F1": 0.85, "AUC per image": 0.90, "AUC per word": 0.90}
"""What a model must reach before TTD is tried on it."""

Results = dict[str, Any]


@torch.inference_mode()
def measure(encoder: Encoder, split: str = "test", count: int = 1024, seed: int = 0) -> Results:
    """Everything the report says about one encoder; one that takes a method in all of them.

    Raises `InputError` for fewer scenes than retrieval needs (256).
    """
    if count < RETRIEVAL_AMONG:
        raise InputError(f"The report needs at least {RETRIEVAL_AMONG} scenes, not {count}.")
    world = Scenes(split, seed)
    scenes = [world[i] for i in range(count)]
    encoded = encode_scenes(encoder, scenes)
    return {
        "clip": {**retrieval(encoded), "noun accuracy": noun_accuracy(encoder, split, seed, count)},
        "tags": tag_selection(encoder, encoded),
        "tags, images shuffled": tag_selection(encoder, encoded, shuffled=True),
        "caption": caption_masks(encoder, encoded),
        "methods": _methods(encoder, scenes, encoded),
    }


def _methods(encoder: Encoder, scenes: Sequence[Scene], encoded: EncodedScenes) -> Results:
    if encoder.method is None:
        return {encoder.kind: _dense(encoder, encoded)}
    rows = {}
    for name in tqdm(method_names(), desc="methods", disable=None):
        if name == encoder.method_name:
            rows[name] = _dense(encoder, encoded)
        else:
            other = encoder.with_method(name)
            rows[name] = _dense(other, encode_scenes(other, scenes))
    return rows


def _dense(encoder: Encoder, encoded: EncodedScenes) -> dict[str, float]:
    """One row of the table of methods."""
    miou, auc = segmentation(encoder, encoded), present_above_absent(encoder, encoded)
    tags = tag_selection(encoder, encoded, scores=("s_pixel",))["s_pixel"]
    captions = caption_masks(encoder, encoded)
    return {
        "mIoU, words that are there": miou["words that are there"],
        "mIoU, all words": miou["all words"],
        "AUC per image": auc["per image"],
        "AUC per word": auc["per word"],
        "s_pixel F1": tags["F1"],
        "s_pixel mAP": tags["mAP"],
        "CaptionIoU": captions["all"]["CaptionIoU"],
        "CaptionIoU, objects only": captions["objects only"]["CaptionIoU"],
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
    head = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    return head + [f"| {row} | " + " | ".join(f"{v[n]:.3f}" for n in names) + " |" for row, v in rows.items()]


def write_report(
    columns: Mapping[str, Results], models: Mapping[str, TTD], about: str, folder: Path, split: str
) -> None:
    """Writes `report.json`, `report.md` and the images in the form of the paper's Figures 1 and 2."""
    with whole_file(folder / "report.json") as part:
        part.write_text(json.dumps(columns, indent=1) + "\n", "utf-8")
    with whole_file(folder / "report.md") as part:
        part.write_text(to_markdown(columns, about) + "\n", "utf-8")
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
@click.option("--count", type=click.IntRange(256), default=1024, show_default=True, help="How many scenes.")
@DEVICE_OPTION
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON on stdout.")
def report(
    model: str, adapter: str | None, out: Path, split: str, count: int, device: str | None, as_json: bool
) -> None:
    """Measure a model on scenes it has never seen: is it a CLIP, has it single tag bias, how well does it localise."""
    models = {"before": ttd.load(model, device=device)}
    if adapter is not None:
        models["after training"] = ttd.load(model, adapter=adapter, device=device)
    columns = {title: measure(one.encoder, split, count) for title, one in models.items()}
    about = f"Model {model}{f' with adapter {adapter}' if adapter else ''}, {count} scenes of the {split} split."
    write_report(columns, models, about, out, split)
    click.echo(json.dumps(columns, indent=1) if as_json else to_markdown(columns, about))
    click.echo(f"report.md, report.json and images are in {out}", err=True)


if __name__ == "__main__":
    report(prog_name="python -m experiments.report")
