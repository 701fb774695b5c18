"""The package's own data sets of label maps: original layouts and the common derived ones."""

from __future__ import annotations

from dataclasses import replace

from ttd.evaluation.datasets.converters import context_maps, object_maps, stuff_maps, train_id_maps
from ttd.evaluation.datasets.labels import LabelRule, ade20k, cityscapes_ids, coco_stuff_ids, identity, without_zero
from ttd.evaluation.datasets.layouts import DataSet, Layout
from ttd.registry import DATASETS


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


for _data in (
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
):
    DATASETS.add(_data.name, _data, __name__)
