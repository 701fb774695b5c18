"""Text-Tag Self-Distillation: tag and segment an image from its caption, with any CLIP-like encoder.

    import ttd
    model = ttd.load("mini")
    print(model.tag("photo.jpg", "a dog on the grass"))

Names are looked up when first used, so that `import ttd` needs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ttd import errors
from ttd.errors import InputError, MissingExtra, ModelError, OutOfMemory, TTDError

if TYPE_CHECKING:
    from ttd.encoders.families import register_encoder
    from ttd.encoders.methods import Method, Patches, register_method
    from ttd.evaluation.datasets.label_maps import DataSet, register_dataset
    from ttd.evaluation.datasets.layouts import LabelMapFile, Layout
    from ttd.inference.options import Options
    from ttd.losses import LossInputs, LossTerm, register_loss_term
    from ttd.model import TTD, load
    from ttd.refine.base import Refiner, register_refiner
    from ttd.results import Segmentation, TaggedWord, Tagging
    from ttd.selection import Selection, SelectionRule, register_rule, select_tags
    from ttd.text.words import Word, split_words

__version__ = "0.1.0"

__all__ = [
    "TTD",
    "DataSet",
    "InputError",
    "LabelMapFile",
    "Layout",
    "LossInputs",
    "LossTerm",
    "Method",
    "MissingExtra",
    "ModelError",
    "Options",
    "OutOfMemory",
    "Patches",
    "Refiner",
    "Segmentation",
    "Selection",
    "SelectionRule",
    "TTDError",
    "TaggedWord",
    "Tagging",
    "Word",
    "__version__",
    "errors",
    "load",
    "register_dataset",
    "register_encoder",
    "register_loss_term",
    "register_method",
    "register_refiner",
    "register_rule",
    "select_tags",
    "split_words",
]

_HOMES = {
    "TTD": "ttd.model",
    "load": "ttd.model",
    "Options": "ttd.inference.options",
    "DataSet": "ttd.evaluation.datasets.label_maps",
    "LabelMapFile": "ttd.evaluation.datasets.layouts",
    "Layout": "ttd.evaluation.datasets.layouts",
    "register_dataset": "ttd.evaluation.datasets.label_maps",
    "LossInputs": "ttd.losses",
    "LossTerm": "ttd.losses",
    "register_loss_term": "ttd.losses",
    "register_encoder": "ttd.encoders.families",
    "Method": "ttd.encoders.methods",
    "Patches": "ttd.encoders.methods",
    "register_method": "ttd.encoders.methods",
    "Refiner": "ttd.refine.base",
    "register_refiner": "ttd.refine.base",
    "Segmentation": "ttd.results",
    "Selection": "ttd.selection",
    "TaggedWord": "ttd.results",
    "Tagging": "ttd.results",
    "SelectionRule": "ttd.selection",
    "register_rule": "ttd.selection",
    "select_tags": "ttd.selection",
    "Word": "ttd.text.words",
    "split_words": "ttd.text.words",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ttd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
