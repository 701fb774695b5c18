"""Data sets of images with a label for every pixel: one entry each.

An entry is one `DataSet` and one `register_dataset(...)`, in `entries` or in another package, which names its module in
its entry points. Then `ttd eval NAME` measures on it and, with a converter, `ttd data prepare NAME` makes its labels:

    [project.entry-points."ttd.datasets"]
    mine = "my_dataset"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ttd.encoders.base import Encoder
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.classes import ClassList, own_classes, read_classes
from ttd.evaluation.datasets.labels import hold_ignored
from ttd.evaluation.datasets.layouts import OWN_FOLDER, LabelMapFile, Layout, find_samples
from ttd.evaluation.registry import BenchmarkEntry, Choices
from ttd.evaluation.tasks.segmentation import ClassSegmentation
from ttd.inference.protocols import class_options, find_protocol
from ttd.registry import DATASETS

Converter = Callable[..., "list[LabelMapFile]"]
_CHOICES = frozenset({"classes", "synonyms", "label_orientation", "known_classes", "masks", "labels"})


@dataclass(frozen=True)
class DataSet(BenchmarkEntry):
    """A named data set of images with label maps.

    Attributes:
        name: for `ttd eval` and `ttd data prepare`.
        title: for people.
        layouts: tried in each folder, in this order.
        folders: tried under the root, in this order.
        full: how many images the whole validation sets have; other numbers are samples. Empty: not known.
        classes: a list of lines as `ttd.evaluation.datasets.classes.read_classes` reads them from a file, or that file;
            None: the package's own list of this name.
        threshold: below which a pixel predicts nothing in the protocol `paper`, for encoders that name none of their
            own for this set; None: the encoder's usual one.
        convert: makes label maps from the official annotations: `convert(annotations, out)`, both paths, gives the
            files to make.
        labels: for a `convert` that also takes `labels`, what stored numbers mean: a name or file for
            `ttd.evaluation.datasets.classes.read_numbers`; "": it takes none.
    """

    layouts: tuple[Layout, ...]
    folders: tuple[str, ...] = ("",)
    full: tuple[int, ...] = ()
    classes: Path | tuple[str, ...] | None = None
    threshold: float | None = None
    convert: Converter | None = None
    labels: str | Path = ""

    choices = _CHOICES

    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> ClassSegmentation:
        """See `BenchmarkEntry`."""
        classes = own_classes(self.name, choices.classes, self.classes, find_protocol(choices.protocol).classes)
        found = find_samples(root, self.folders, self.layouts)
        return _segmentation(self.name, root, classes, found, choices, encoder, self.threshold)

    def whole(self, settings: Any) -> tuple[int, ...]:
        """See `BenchmarkEntry`."""
        return self.full


@dataclass(frozen=True)
class OwnFolder(BenchmarkEntry):
    """Images and PNG label maps of class numbers in one folder, with `classes.txt`."""

    choices = _CHOICES

    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> ClassSegmentation:
        """See `BenchmarkEntry`."""
        classes = read_classes(choices.classes or root / "classes.txt")
        return _segmentation(self.name, root, classes, find_samples(root, ("",), OWN_FOLDER), choices, encoder)


def _segmentation(
    name: str,
    root: Path,
    classes: ClassList,
    found: tuple[list[Sample], Layout],
    choices: Choices,
    encoder: Encoder | None,
    threshold: float | None = None,
) -> ClassSegmentation:
    samples, layout = found
    rule = layout.rule
    if layout.reduced is not None and hold_ignored([sample.truth[0] for sample in samples]):
        rule = layout.reduced
    options = class_options(
        choices.protocol,
        choices.given or {},
        name,
        background=classes.background_words,
        encoder=encoder,
        threshold=threshold,
    )
    return ClassSegmentation(
        name,
        root,
        samples,
        classes,
        rule,
        options,
        synonyms=choices.synonyms or find_protocol(choices.protocol).synonyms,
        orientation=choices.label_orientation,
        voc_colours=layout.voc_colours,
        known=choices.known_classes,
    )


E = TypeVar("E", bound=BenchmarkEntry)


def register_dataset(data: E) -> E:
    """Make a data set known by its name; gives it back.

    Args:
        data: a `DataSet` of label maps, or an entry of another kind.

    Raises:
        InputError: the name is taken or is not a name.
    """
    DATASETS.add(data.name, data, f"{type(data).__qualname__} {data.title}")
    return data
