"""A queue whose truth is known: images of two coloured halves, captions and a model that name and see colours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.colour_encoder import ColourEncoder
from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.proposals import Proposer
from ttd.annotate.queue import Queue
from ttd.model import TTD

SIZE = (32, 48)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
PAIRS = (("red", "green"), ("green", "blue"), ("blue", "red"))


def halves(left: str, right: str) -> np.ndarray:
    """uint8 [32,48,3]."""
    pixels = np.empty((*SIZE, 3), np.uint8)
    pixels[:, :24], pixels[:, 24:] = COLOURS[left], COLOURS[right]
    return pixels


def left_half() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[:, :24] = True
    return mask


def write_folder(folder: Path, count: int = 3) -> Path:
    """PNG files and captions.jsonl: "a red wall beside a green door"."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        left, right = PAIRS[number % 3]
        Image.fromarray(halves(left, right)).save(folder / f"{number:03d}.png")
        caption = f"A {left} wall beside a {right} door ."
        lines.append(json.dumps({"image": f"{number:03d}.png", "caption": caption}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def colour_model() -> TTD:
    torch.manual_seed(0)
    return TTD(ColourEncoder().eval())


def open_annotations(folder: Path, out: Path, count: int = 3) -> AnnotationSet:
    """An annotation set of `write_folder`'s images, which are made where they are missing."""
    if not folder.exists():
        write_folder(folder, count)
    return AnnotationSet(Queue.open(folder), out, Proposer(colour_model()))
