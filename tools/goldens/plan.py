"""Which goldens there are: commands, the files of theirs that count, and how far numbers may lie apart.

Command lines are in the words of the commit that the table of renames starts from; `renames.toml` says how a tree
spells them. `{inputs}` is what `inputs.py` writes; a golden's commands run in a folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

# Cosines, maps and scores in 0..1: float32 sums of some hundred terms through a few layers, each to 6e-8 relative.
SCORES = 1e-5
# After 20 steps of AdamW an entry has moved by at most 20 x 1e-4; where a gradient is nearly 0 rounding decides a step.
WEIGHTS = 2e-4
# Shares over a few thousand pixels or a few words, where a pixel at a threshold may fall on the other side.
SHARES = 2e-3


@dataclass(frozen=True)
class Golden:
    """Something that both trees must give alike.

    Attributes:
        name: for the report and `--only`.
        commands: command lines, run one after the other in one folder.
        files: patterns of the files that are compared.
        tolerance: the largest absolute difference that still counts as equal; of pictures the share of pixels.
        closer: files that are held to `SCORES` all the same.
        fields: where given, only these fields of JSON objects count.
        codes: exit codes that are fine.
    """

    name: str
    commands: tuple[str, ...]
    files: tuple[str, ...]
    tolerance: float = SCORES
    closer: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)


IMAGES = "{inputs}/images.jsonl"  # three scenes and two photos, with captions
TAGS = "{inputs}/tags.jsonl"  # the same with words
# Run on each side before goldens that name `ADAPTER`: the package's own adapters may be trained again.
ADAPTER = "{inputs}/adapter"
SETUP = "train {inputs}/scenes --config mini --steps 20 --out {inputs}/adapter"
NUMBERS = ("items", "measured", "numbers")
# Values that say when, where or by which command something was made, and settings, which are renamed as a whole.
IGNORED = ("command", "versions", "images_per_second", "pictures", "model", "settings", "choices", "notes", "seconds")

MODELS = {
    "mini": "--model mini",
    "adapter": "--model mini --adapter {inputs}/adapter",
    "values": "--model mini --variant naclip",
    "clip": "--model {inputs}/tiny-clip --variant sclip",
    "tcl": "--model {inputs}/tiny-tcl.safetensors",
}
PAPER = {"tag": "paper-tags", "mask": "paper-captions", "segment": "paper-classes", "heatmap": "paper-captions"}
BENCHMARKS = (
    "voc", "voc20", "context60", "context59", "coco-object", "coco-stuff", "ade20k", "cityscapes", "folder",
    "coco-80", "nus-wide", "refcoco", "refcoco+", "refcocog", "tagmask",
)  # fmt: skip
# On `mini`, which knows no templates, the paper's settings ask for nothing that TCL's do not, apart from the scales.
EVALS = {
    "tagmask-adapter": "tagmask --model mini --adapter {inputs}/adapter --preset default --share 0.9",
    "tagmask-paper": "tagmask --model mini --limit 1",
    "folder-paper": "folder --model mini --limit 1",
    "folder-pamr": "folder --model mini --adapter {inputs}/adapter --preset default --refine pamr --background 0.4",
    "voc-tcl": "voc --model {inputs}/tiny-tcl.safetensors --preset tcl --limit 2",
    "tagmask-tcl": "tagmask --model {inputs}/tiny-tcl.safetensors --preset tcl --limit 2",
    "nus-wide-clip": "nus-wide --model {inputs}/tiny-clip --preset default --synonyms",
}

MAPS = """-c
import numpy as np, ttd
found = {}
for name, more in (("mini", {}), ("adapter", {"adapter": "{inputs}/adapter"})):
    model = ttd.load("mini", **more)
    for preset in ("default", "tcl"):
        for image in ("scene0", "photo0"):
            found[f"{name}-{preset}-{image}"] = model.heatmaps(
                f"{inputs}/images/{image}.png", ["dog", "grass", "a dog on the grass"], preset=preset)
model = ttd.load("{inputs}/tiny-tcl.safetensors")
found["tcl"] = model.heatmaps("{inputs}/images/scene0.png", ["dog", "grass"], preset="tcl")
found["text"] = model.encode_text(["dog", "a dog on the grass"], "openai80").numpy()
np.savez("out.npz", **found)
"""


def _images() -> list[Golden]:
    found = []
    for name, model in MODELS.items():
        for command, source in (("tag", IMAGES), ("mask", IMAGES), ("segment", TAGS), ("heatmap", TAGS)):
            out = "out.jsonl" if command == "tag" else "out"
            drawn = {"mask": "*-mask.png", "segment": "*-labels.png", "heatmap": "*-map*.png"}.get(command)
            files = ("out/results.jsonl", f"out/pictures/{drawn}") if drawn else ("out.jsonl",)
            tolerance = SCORES if command == "tag" else SHARES
            more = "" if name != "tcl" or command == "tag" else "--preset tcl"
            lines = (f"{command} {source} {model} {more} --out {out}",)
            found.append(Golden(f"{command}-{name}", lines, files, tolerance))
    for command, preset in PAPER.items():
        source = "{inputs}/few-images.jsonl" if command in ("tag", "mask") else "{inputs}/few-tags.jsonl"
        line = f"{command} {source} --preset {preset} --out out.jsonl"
        found.append(Golden(f"{command}-paper", (line,), ("out.jsonl",), SCORES if command == "tag" else SHARES))
    for score in ("s_image", "s_text", "s_image+s_text", "s_seg"):
        line = f"tag {IMAGES} --score {score} --no-stop-words --out out.jsonl"
        found.append(Golden(f"tag-{score}", (line,), ("out.jsonl",)))
    line = f"tag {IMAGES} --adapter {ADAPTER} --selection borrowed --share 0.9 --borrowed list --out out.jsonl"
    found.append(Golden("tag-borrowed", (line,), ("out.jsonl",)))
    line = f"mask {IMAGES} --refine pamr --threshold 0.4 --out out"
    found.append(Golden("mask-pamr", (line,), ("out/results.jsonl", "out/pictures/*-mask.png"), SHARES))
    one = "{inputs}/images/scene0.png"
    lines = (
        f"tag {one} --tags dog grass 'hot dog' --json",
        f"mask {one} 'a dog on the grass' --background 0.45 --json",
        f"segment {one} --tags dog grass --background none --json",
        f"heatmap {one} dog grass --size 96 --json",
    )
    found.append(Golden("one-image", lines, ("stdout",), SHARES))
    found.append(Golden("maps", (MAPS,), ("out.npz",)))
    return found


def _training() -> list[Golden]:
    adapter, losses = ("out/adapter_model.safetensors",), ("out/log.jsonl",)
    found = []
    for name, line in (
        ("train-mini", "--config mini --steps 20"),
        ("train-paper", "--config mini_paper --steps 20"),
        ("train-clip", "--config mini_paper --model {inputs}/tiny-clip --steps 5"),
        ("train-tcl", "--config mini_paper --model {inputs}/tiny-tcl.safetensors --steps 5"),
    ):
        line = f"train {{inputs}}/scenes {line} --out out"
        found.append(Golden(name, (line,), adapter, WEIGHTS, losses))
    lines = (
        "train {inputs}/scenes --config mini_paper --model {inputs}/tiny-tcl.safetensors --steps 2 --out adapter",
        "merge --model {inputs}/tiny-tcl.safetensors --adapter adapter --adapter-scale 0.5 --out out",
    )
    found.append(Golden("merge-tcl", lines, ("out/tcl.safetensors",), WEIGHTS))
    lines = ("prune {inputs}/scenes --model mini --out out",)
    found.append(Golden("prune", lines, ("out/keep.parquet", "out/scores/**/*.parquet")))
    lines = ("data tag {inputs}/scenes --model mini --selection borrowed --share 0.9 --out out",)
    found.append(Golden("data-tag", lines, ("out/tags/**/*.parquet",)))
    return found


def _measures() -> list[Golden]:
    files = ("out/results.json", "out/*.csv")
    found = []
    for name in BENCHMARKS:
        line = f"eval {name} --data {{inputs}}/{name} --model mini --preset default --pictures 0 --out out"
        found.append(Golden(f"eval-{name}", (line,), files, SHARES, fields=NUMBERS))
    for name, line in EVALS.items():
        benchmark, _, more = line.partition(" ")
        line = f"eval {benchmark} --data {{inputs}}/{benchmark} {more} --pictures 0 --out out"
        found.append(Golden(f"eval-{name}", (line,), files, SHARES, fields=NUMBERS))
    line = f"bias --data {{inputs}}/tagmask --model mini --adapter {ADAPTER} --preset default --pictures 0 --out out"
    both = ("out/before/results.json", "out/after/results.json", "out/*/captions.csv")
    found.append(Golden("bias", (line,), both, SHARES, fields=NUMBERS))
    found.append(Golden("demo", ("demo --scenes 2 --out out",), ("out/demo.json",)))
    return found


def _scenes() -> list[Golden]:
    lines = (
        "scenes write out --count 24 --start 5 --captions 2 --wrong-percent 40",
        "scenes write set --format tagmask --split test --count 4",
    )
    return [Golden("scenes-write", lines, ("out/*.tar", "set/**/*.png", "set/tags.jsonl"))]


GOLDENS = (*_scenes(), *_images(), *_training(), *_measures())
