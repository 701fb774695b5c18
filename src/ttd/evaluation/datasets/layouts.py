"""Where the images and label maps of each data set lie: original layouts and the common derived ones."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ttd.data.listing import ImageListing, is_image_file, list_images
from ttd.errors import InputError
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.classes import read_lines
from ttd.safe_paths import ID_BYTES, check_path


def image_folder(folders: Sequence[Path], names: Iterable[str]) -> Path:
    """The first folder that holds one of the named images.

    Raises:
        InputError: none does.
    """
    listed = list(names)
    for folder in folders:
        if any((folder / name).is_file() for name in listed):
            return folder
    places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise InputError(f"none of the {len(listed)} listed images lies in {places}: put them there")


log = logging.getLogger(__name__)

_USUAL_ENDING = ".jpg"


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is laid out.

    Attributes:
        images, labels: folders under the data set's.
        ending: of label files, after the image's id.
        image_ending: of images before the file type, after the id.
        splits: text files of ids, the first that is there counts; where none is, all label files count.
        rule: from stored values to classes, see `ttd.evaluation.datasets.labels`.
        not_ending: label files with this ending belong to another layout.
    """

    images: str
    labels: str
    ending: str = ".png"
    image_ending: str = ""
    splits: tuple[str, ...] = ()
    rule: str = "identity"
    not_ending: str = "Ids.png"


@dataclass(frozen=True)
class DataSet:
    """A named data set.

    Attributes:
        title: for people.
        full: how many images the whole validation sets have; other numbers are samples.
        folders: tried under the root, in this order.
        layouts: tried in each folder, in this order.
    """

    title: str
    full: tuple[int, ...]
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]


def _authors(rule: str) -> tuple[Layout, ...]:
    """The folders of the paper's authors (and the same without `validation`).

    Their third folder `xml` is not read: it names the classes of each image, which a model must find out by itself.
    """
    return (Layout("validation/image", "validation/mask", rule=rule), Layout("image", "mask", rule=rule))


_VOC_FOLDERS = ("", "VOC2012", "VOCdevkit/VOC2012")
_CONTEXT_FOLDERS = ("", "VOC2010", "VOCdevkit/VOC2010", "PASCAL_Context")


def _voc(rule: str) -> tuple[Layout, ...]:
    splits = ("ImageSets/Segmentation/val.txt",)
    return (Layout("JPEGImages", "SegmentationClass", splits=splits, rule=rule), *_authors(rule))


def _context(rule: str) -> tuple[Layout, ...]:
    # The data set's own halves (4998 and 5105 images) are those of VOC 2010; the field's list leaves one out.
    splits = ("ImageSets/SegmentationContext/val.txt", "ImageSets/Main/val.txt")
    return (Layout("JPEGImages", "SegmentationClassContext", splits=splits, rule=rule), *_authors(rule))


def _coco(ending: str, rule: str = "identity", not_ending: str = "") -> tuple[Layout, ...]:
    places = (
        ("images/val2017", "annotations/val2017"),
        ("val2017", "annotations/val2017"),
        ("val2017", "stuffthingmaps/val2017"),
        ("images/val2017", "stuffthingmaps/val2017"),
        ("images/val2014", "annotations/val2014"),
        ("val2014", "annotations/val2014"),
    )
    return tuple(Layout(images, labels, ending, rule=rule, not_ending=not_ending) for images, labels in places)


def _cityscapes(ending: str, rule: str) -> tuple[Layout, ...]:
    return tuple(
        Layout(f"leftImg8bit{part}", f"gtFine{part}", ending, "_leftImg8bit", rule=rule, not_ending="")
        for part in ("/val", "")
    )


DATA_SETS = {
    "voc": DataSet("PASCAL VOC 2012, 20 classes and background", (1449,), _VOC_FOLDERS, _voc("identity")),
    "voc20": DataSet("PASCAL VOC 2012, 20 classes", (1449,), _VOC_FOLDERS, _voc("without zero")),
    "context60": DataSet("PASCAL Context, 60 classes", (5104, 5105), _CONTEXT_FOLDERS, _context("identity")),
    "context59": DataSet("PASCAL Context, 59 classes", (5104, 5105), _CONTEXT_FOLDERS, _context("without zero")),
    "coco-object": DataSet(
        "COCO, 80 objects and background",
        (5000, 40504),
        ("",),
        (*_coco("_instanceTrainIds.png"), *_authors("identity")),
    ),
    "coco-stuff": DataSet(
        "COCO-Stuff 164k, 171 classes",
        (5000,),
        ("",),
        (
            *_coco("_labelTrainIds.png"),
            *_coco(".png", "coco-stuff ids", not_ending="Ids.png"),
            *_authors("identity"),
        ),
    ),
    "ade20k": DataSet(
        "ADE20K, 150 classes",
        (2000,),
        ("", "ADEChallengeData2016"),
        (
            Layout("images/validation", "annotations/validation", rule="without zero"),
            Layout("images", "annotations", rule="without zero"),
            *_authors("without zero"),
        ),
    ),
    "cityscapes": DataSet(
        "Cityscapes, 19 classes",
        (500,),
        ("",),
        (
            *_cityscapes("_gtFine_labelTrainIds.png", "identity"),
            *_cityscapes("_gtFine_labelIds.png", "cityscapes ids"),
            *_authors("identity"),
        ),
    ),
}
# Images of the whole sets that have a layout of their own, with who divided and the split where there are several.
_OTHERS: dict[str, tuple[int, ...]] = {
    "coco-80": (5000, 40504),
    "nus-wide": (107859,),
    "refcoco unc val": (1500,),
    "refcoco unc testA": (750,),
    "refcoco unc testB": (750,),
    "refcoco google val": (4559,),
    "refcoco google test": (4527,),
    "refcoco+ unc val": (1500,),
    "refcoco+ unc testA": (750,),
    "refcoco+ unc testB": (750,),
    "refcocog umd val": (1300,),
    "refcocog umd test": (2600,),
    "refcocog google val": (4650,),
}
OWN = (Layout("images", "labels"), Layout("images", "masks"), Layout("image", "mask"))


def is_whole(name: str, count: int, protocol: Mapping[str, Any] | None = None) -> bool:
    """Whether so many images are a whole validation set; sets without a known size always are."""
    whole = whole_counts(name, protocol)
    return not whole or count in whole


def whole_counts(name: str, protocol: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """How many images the whole sets of this name have; nothing where it has no known size.

    Args:
        name: of a benchmark.
        protocol: its `settings()`, where "by" and "split" say which of several splits it is.
    """
    if name in DATA_SETS:
        return DATA_SETS[name].full
    part = [str(protocol[key]) for key in ("by", "split") if key in protocol] if protocol else []
    return _OTHERS.get(" ".join([name, *part]), ())


def find_samples(root: Path, folders: tuple[str, ...], layouts: tuple[Layout, ...]) -> tuple[list[Sample], Layout]:
    """The items of the first layout that is there, ordered by id.

    Raises:
        InputError: none is there; says which folders were looked for.
    """
    if not root.is_dir():
        raise InputError(f"{root} is no folder: give the one that holds the data set")
    for folder in folders:
        for layout in layouts:
            home = root / folder
            images, labels = _Files(home / layout.images), _Files(home / layout.labels)
            if not images.folder.is_dir() or not labels.folder.is_dir():
                continue
            if found := _samples(home, layout, images, labels):
                for files in (images, labels):
                    files.tell()
                return found, layout
    wanted = "; ".join(dict.fromkeys(f"{a.images}/ with {a.labels}/*{a.ending}" for a in layouts))
    raise InputError(f"{root} holds none of the known layouts of this data set: {wanted} (see docs/benchmarks.md)")


class _Files:
    """The images in a folder by their names without an ending, whatever the ending is; listed where that is needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, ending: str = _USUAL_ENDING) -> Path:
        """The file of this name; where there is none, the path that it would have with `ending`."""
        usual = self.folder / f"{name}{ending}"
        return usual if usual.is_file() else self.by_name.get(_plain(name), usual)

    @cached_property
    def by_name(self) -> dict[str, Path]:
        """Path from the folder on, without its ending -> file; of several endings the first counts."""
        found: dict[str, Path] = {}
        for path in self._listing.files:
            found.setdefault(_plain(path.relative_to(self.folder).with_suffix("").as_posix()), path)
        return found

    @cached_property
    def _listing(self) -> ImageListing:
        return list_images(self.folder)

    def tell(self) -> None:
        """Says in the log what was left out of a listing that was made."""
        if "_listing" in vars(self) and self._listing.left_out:
            log.warning("%s: left out %s.", self.folder, self._listing.left_out)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _samples(home: Path, layout: Layout, images: _Files, labels: _Files) -> list[Sample]:
    split = next((path for name in layout.splits if (path := home / name).is_file()), None)
    ending = layout.ending.removesuffix(".png")
    if split is not None:
        listed = read_lines(split, "get the data set's own list of ids again")
        ids = [_id(line.split(), split, layout, images) for line in listed if line.split()]
    else:
        other = layout.not_ending.removesuffix(".png")
        found = [name for name, path in labels.by_name.items() if path.suffix.lower() == ".png"]
        ids = [name.removesuffix(ending) for name in sorted(found) if name.endswith(ending)]
        ids = [name for name in ids if not other or not f"{name}{ending}".endswith(other)]
        lonely = len(images.by_name) - len(
            {_plain(f"{name}{layout.image_ending}") for name in ids} & set(images.by_name)
        )
        if ids and lonely:
            log.warning("%s: left out %d images that have no label map.", images.folder, lonely)
    return [
        Sample(name, images.find(f"{name}{layout.image_ending}"), (labels.find(f"{name}{ending}", ".png"),))
        for name in dict.fromkeys(ids)
    ]


def _id(columns: list[str], split: Path, layout: Layout, images: _Files) -> str:
    """An image's id from a line of a list: an id, or as DeepLab's lists have it the paths of image and label."""
    name = columns[0].removeprefix(f"/{layout.images}/").removeprefix(f"{layout.images}/")
    check_path(name, split, "id", most=ID_BYTES)
    if is_image_file(Path(name)) and not images.find(f"{name}{layout.image_ending}").is_file():
        name = str(Path(name).with_suffix(""))
    if len(columns) > 1 and is_image_file(Path(columns[1])):
        label = f"{layout.labels}/{name}{layout.ending}"
        if columns[1].removeprefix("/") != label:
            raise InputError(f"{split} names the label map {columns[1]}, and this data set reads {label}: correct it")
    return name
