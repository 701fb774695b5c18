"""One model measured on scenes: the numbers of the tables, and values scene by scene for paired differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ttd.documents import read_json
from ttd.encoders.base import Encoder
from ttd.evaluation.metrics import class_scores
from ttd.files import whole_file
from ttd.scenes.measure import (
    CaptionRow,
    caption_means,
    caption_rows,
    confusion,
    encode_scenes,
    noun_accuracy,
    present_aucs,
    retrieval,
    tag_selection,
)
from ttd.scenes.scene import Scene, Scenes
from ttd.schema import any_number, each, fields, mapping, optional

PAPER_THRESHOLD = 0.5
CUTS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
PAIRED = ("CaptionIoU", "CaptionIoU, objects only", "IoU in the image", "AUC per image")

_NUMBERS = mapping(optional(any_number))
_MEASURED = fields(
    {"numbers": _NUMBERS, "controls": _NUMBERS, "paired": mapping(each(optional(any_number)))}, others=False
)


@dataclass(frozen=True)
class Measured:
    """What one model does on test scenes.

    Attributes:
        numbers: measures by name, shares in 0..1.
        controls: what needs no training to be known: "every noun" and the whole image as a mask.
        paired: for each of `PAIRED` a value per scene; NaN where the scene does not ask it.
    """

    numbers: dict[str, float]
    controls: dict[str, float]
    paired: dict[str, list[float]]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        with whole_file(path) as part:
            part.write_text(json.dumps(asdict(self)) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Measured:
        """What `write` wrote."""
        return cls(**read_json(path, _MEASURED, nan=True))


@torch.inference_mode()
def measure(encoder: Encoder, test: int, validation: int) -> Measured:
    """Measures an encoder on `test` scenes; `validation` scenes choose the threshold of the caption's mask."""
    threshold = chosen_threshold(encoder, validation)
    encoded = encode_scenes(encoder, _scenes("test", test))
    tags = tag_selection(encoder, encoded, scores=("s_pixel",))
    shuffled = tag_selection(encoder, encoded, scores=("s_pixel",), shuffled=True)["s_pixel"]
    rows = caption_rows(encoder, encoded, (PAPER_THRESHOLD, threshold))
    objects = [row for row in rows if row.objects_only]
    means, of_objects = caption_means(rows), caption_means(objects)
    aucs = present_aucs(encoder, encoded)
    matrices = [confusion(encoder, encoded, number) for number in range(test)]
    numbers = {
        **{name: tags["s_pixel"][name] for name in ("precision", "recall", "F1", "accuracy", "mAP", "absent selected")},
        "F1, shuffled": shuffled["F1"],
        **{name: means[name] for name in ("CaptionIoU", "mFPR", "mFNR")},
        "CaptionIoU, objects only": of_objects["CaptionIoU"],
        "chosen threshold": threshold,
        "CaptionIoU, chosen threshold": caption_means(rows, 1)["CaptionIoU"],
        "objects only, chosen threshold": caption_means(objects, 1)["CaptionIoU"],
        "mIoU": class_scores(np.sum(matrices, axis=0)).mean["mIoU"],
        **{f"AUC {name}": float(np.nanmean(values)) for name, values in aucs.items()},
        **retrieval(encoded),
        "noun accuracy": noun_accuracy(encoder, "test", 0, test),
    }
    every = tags["every noun"]
    controls = {
        f"every noun: {name}": every[name] for name in ("precision", "recall", "F1", "accuracy", "absent selected")
    }
    controls["whole image IoU"] = means["whole image IoU"]
    controls["whole image IoU, objects only"] = of_objects["whole image IoU"]
    paired = (
        _by_scene(rows, test),
        _by_scene(objects, test),
        [class_scores(matrix).mean["mIoU"] for matrix in matrices],
        aucs["per image"],
    )
    return Measured(numbers, controls, dict(zip(PAIRED, paired, strict=True)))


def _by_scene(rows: Sequence[CaptionRow], count: int) -> list[float]:
    """CaptionIoU of every scene, NaN for those without a row."""
    ious = {row.number: row.overlaps[0].iou for row in rows}
    return [ious.get(number, float("nan")) for number in range(count)]


@torch.inference_mode()
def chosen_threshold(encoder: Encoder, validation: int) -> float:
    """The threshold of `CUTS` with the highest CaptionIoU on validation scenes."""
    encoded = encode_scenes(encoder, _scenes("validation", validation))
    rows = caption_rows(encoder, encoded, CUTS)
    return CUTS[int(np.argmax([caption_means(rows, number)["CaptionIoU"] for number in range(len(CUTS))]))]


@torch.inference_mode()
def validation_miou(encoder: Encoder, validation: int) -> float:
    """mIoU among the words that are there, by which the last block's method is chosen."""
    encoded = encode_scenes(encoder, _scenes("validation", validation))
    total = sum(confusion(encoder, encoded, number) for number in range(validation))
    return class_scores(np.asarray(total)).mean["mIoU"]


@lru_cache(maxsize=2)
def _scenes(split: str, count: int) -> Sequence[Scene]:
    """The scenes, painted once a process."""
    world = Scenes(split)
    return [world[number] for number in range(count)]
