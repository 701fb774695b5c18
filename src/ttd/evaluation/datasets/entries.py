"""The package's own data sets: label maps in original layouts and the common derived ones, and those of other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttd.encoders.base import Encoder
from ttd.evaluation.benchmark import Benchmark
from ttd.evaluation.datasets.classes import own_classes
from ttd.evaluation.datasets.converters import context_maps, object_maps, stuff_maps, train_id_maps
from ttd.evaluation.datasets.label_maps import DataSet, OwnFolder
from ttd.evaluation.datasets.labels import LabelRule, ade20k, cityscapes_ids, coco_stuff_ids, identity, without_zero
from ttd.evaluation.datasets.layouts import Layout
from ttd.evaluation.datasets.multilabel import read_coco, read_nus_wide
from ttd.evaluation.datasets.refcoco import read_refer
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.registry import BenchmarkEntry, Choices
from ttd.evaluation.tasks.multilabel import MultiLabel
from ttd.evaluation.tasks.referring import Referring
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import VIEW_OPTIONS
from ttd.inference.protocols import options
from ttd.negatives import find_negatives
from ttd.registry import DATASETS
from ttd.taggers import open_tagger
from ttd.text.words import is_stop_word


def _authors(rule: LabelRule) -> tuple[Layout, ...]:
    """The folders of the paper's authors (and the same without `validation`).

    Their third folder `xml` is not read: it names the classes of each image, which a model must find out by itself.
    """
    return (Layout("validation/image", "validation/mask", rule=rule), Layout("image", "mask", rule=rule))


_VOC_FOLDERS = ("", "VOC2012", "VOCdevkit/VOC2012")
_CONTEXT_FOLDERS = ("", "VOC2010", "VOCdevkit/VOC2010", "PASCAL_Context")


def _voc(rule: LabelRule) -> tuple[Layout, ...]:
    splits = ("ImageSets/Segmentation/val.txt",)
    layouts = (Layout("JPEGImages", "SegmentationClass", splits=splits, rule=rule), *_authors(rule))
    return tuple(replace(layout, voc_colours=True) for layout in layouts)


def _context(rule: LabelRule) -> tuple[Layout, ...]:
    # The data set's own halves (4998 and 5105 images) are those of VOC 2010; the field's list leaves one out.
    splits = ("ImageSets/SegmentationContext/val.txt", "ImageSets/Main/val.txt")
    return (Layout("JPEGImages", "SegmentationClassContext", splits=splits, rule=rule), *_authors(rule))


def _coco(ending: str, rule: LabelRule = identity, not_ending: str = "") -> tuple[Layout, ...]:
    places = (
        ("images/val2017", "annotations/val2017"),
        ("val2017", "annotations/val2017"),
        ("val2017", "stuffthingmaps/val2017"),
        ("images/val2017", "stuffthingmaps/val2017"),
        ("images/val2014", "annotations/val2014"),
        ("val2014", "annotations/val2014"),
    )
    return tuple(Layout(images, labels, ending, rule=rule, not_ending=not_ending) for images, labels in places)


def _cityscapes(ending: str, rule: LabelRule) -> tuple[Layout, ...]:
    return tuple(
        Layout(f"leftImg8bit{part}", f"gtFine{part}", ending, "_leftImg8bit", rule=rule, not_ending="")
        for part in ("/val", "")
    )


@dataclass(frozen=True)
class Captions(BenchmarkEntry):
    """A TagMask set, of the documented layout or of the paper's authors."""

    choices = frozenset({"parts", "masks"})

    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> Benchmark:
        """See `BenchmarkEntry`."""
        data = read_tagmask(root)
        words = (word for row in data.rows for word in row.words if choices.stop_words or not is_stop_word(word))
        return TagMask(
            data,
            options(choices.protocol, "tags", **_of_views(choices)),
            options(choices.protocol, "masks", **(choices.given or {})),
            parts=choices.parts,
            scores=choices.scores,
            stop_words=choices.stop_words,
            shuffled=choices.shuffled,
            taggers=[open_tagger(one, choices.spacy_model, choices.llm) for one in dict.fromkeys(choices.taggers)],
            rules=choices.rules,
            percentiles=choices.percentiles,
            negatives=find_negatives(choices.negatives, words) if choices.percentiles else None,
        )


@dataclass(frozen=True)
class ImageLabels(BenchmarkEntry):
    """The classes of whole images: NUS-WIDE."""

    full: tuple[int, ...]

    choices = frozenset({"classes", "synonyms"})

    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> Benchmark:
        """See `BenchmarkEntry`."""
        data = read_coco(root, choices.split) if "split" in self.choices else read_nus_wide(root)
        classes = own_classes(self.name, choices.classes)
        asked = options(choices.protocol, "labels", **_of_views(choices, "templates"))
        return MultiLabel(self.name, data, classes, asked, choices.synonyms)

    def whole(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """See `BenchmarkEntry`."""
        return self.full


@dataclass(frozen=True)
class CocoLabels(ImageLabels):
    """COCO's objects as classes of whole images."""

    choices = frozenset({"classes", "synonyms", "split"})


@dataclass(frozen=True)
class Expressions(BenchmarkEntry):
    """Masks of referring expressions.

    Attributes:
        full: images of each split by who divided, "unc val".
    """

    full: Mapping[str, int]

    choices = frozenset({"split", "split_by", "masks"})

    def open(self, root: Path, choices: Choices, encoder: Encoder | None) -> Benchmark:
        """See `BenchmarkEntry`."""
        data = read_refer(self.name, root, choices.split or "val", choices.split_by)
        return Referring(data, options(choices.protocol, "masks", **(choices.given or {})))

    def whole(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        """See `BenchmarkEntry`."""
        count = self.full.get(f"{settings.get('by')} {settings.get('split')}")
        return () if count is None else (count,)


def _of_views(choices: Choices, *more: str) -> dict[str, Any]:
    """Those single options that concern the views of an image when words and classes are scored."""
    return {name: value for name, value in (choices.given or {}).items() if name in (*VIEW_OPTIONS, *more)}


_UNC = {"unc val": 1500, "unc testA": 750, "unc testB": 750}

ENTRIES: tuple[BenchmarkEntry, ...] = (
    DataSet("voc", "PASCAL VOC 2012, 20 classes and background", _voc(identity), _VOC_FOLDERS, (1449,)),
    DataSet("voc20", "PASCAL VOC 2012, 20 classes", _voc(without_zero), _VOC_FOLDERS, (1449,)),
    DataSet(
        "context60",
        "PASCAL Context, 60 classes",
        _context(identity),
        _CONTEXT_FOLDERS,
        (5104, 5105),
        convert=context_maps,
        labels="context459",
    ),
    DataSet(
        "context59",
        "PASCAL Context, 59 classes",
        _context(without_zero),
        _CONTEXT_FOLDERS,
        (5104, 5105),
        convert=context_maps,
        labels="context459",
    ),
    DataSet(
        "coco-object",
        "COCO, 80 objects and background",
        (*_coco("_instanceTrainIds.png"), *_authors(identity)),
        full=(5000, 40504),
        convert=object_maps,
    ),
    DataSet(
        "coco-stuff",
        "COCO-Stuff 164k, 171 classes",
        (
            *_coco("_labelTrainIds.png"),
            *_coco(".png", coco_stuff_ids, not_ending="Ids.png"),
            *_authors(identity),
        ),
        full=(5000,),
        convert=stuff_maps,
    ),
    DataSet(
        "ade20k",
        "ADE20K, 150 classes",
        (
            Layout("images/validation", "annotations/validation", rule=ade20k, reduced=identity),
            Layout("images", "annotations", rule=ade20k, reduced=identity),
            *(replace(layout, reduced=identity) for layout in _authors(ade20k)),
        ),
        ("", "ADEChallengeData2016"),
        (2000,),
    ),
    DataSet(
        "cityscapes",
        "Cityscapes, 19 classes",
        (
            *_cityscapes("_gtFine_labelTrainIds.png", identity),
            *_cityscapes("_gtFine_labelIds.png", cityscapes_ids),
            *_authors(identity),
        ),
        full=(500,),
        convert=train_id_maps,
    ),
    OwnFolder("folder", "images/, labels/ and classes.txt of your own"),
    Captions("tagmask", "captioned images with true words and masks: CC3M-TagMask, or your own"),
    CocoLabels("coco-80", "COCO, 80 classes of whole images", (5000, 40504)),
    ImageLabels("nus-wide", "NUS-WIDE, 81 classes of whole images", (107859,)),
    Expressions("refcoco", "RefCOCO, masks of expressions", {**_UNC, "google val": 4559, "google test": 4527}),
    Expressions("refcoco+", "RefCOCO+, masks of expressions", _UNC),
    Expressions("refcocog", "RefCOCOg, masks of expressions", {"umd val": 1300, "umd test": 2600, "google val": 4650}),
)
for _entry in ENTRIES:
    DATASETS.add(_entry.name, _entry, __name__)
