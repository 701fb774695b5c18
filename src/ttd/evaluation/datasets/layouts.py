"""Where a data set's images and label maps are, and what the labels mean."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ttd.data.listing import ImageListing, is_image_file, list_images
from ttd.errors import InputError
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.classes import read_lines
from ttd.evaluation.datasets.labels import LabelRule, identity
from ttd.files.safe_paths import ID_BYTES, check_path


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
    raise InputError(f"none of the {len(listed)} listed images is in {places}: put them there")


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
        rule: makes the table from stored values to classes, see `ttd.evaluation.datasets.labels`.
        not_ending: label files with this ending belong to another layout.
        reduced: the rule where labels hold 255, in place of `rule`: others have taken the value 0 out already.
        voc_colours: whether the labels' colours are VOC's, which count more than the numbers that are stored.
    """

    images: str
    labels: str
    ending: str = ".png"
    image_ending: str = ""
    splits: tuple[str, ...] = ()
    rule: LabelRule = identity
    not_ending: str = "Ids.png"
    reduced: LabelRule | None = None
    voc_colours: bool = False


@dataclass(frozen=True)
class LabelMapFile:
    """One label map that a converter makes.

    Attributes:
        name: of the image, for messages.
        out: the PNG file.
        make: gives the labels, uint8 [H,W]; raises `InputError` where the annotation cannot be used.
    """

    name: str
    out: Path
    make: Callable[[], np.ndarray]


OWN_FOLDER = (Layout("images", "labels"), Layout("images", "masks"), Layout("image", "mask"))
"""Layouts of the benchmark `folder`."""


def find_samples(root: Path, folders: tuple[str, ...], layouts: tuple[Layout, ...]) -> tuple[list[Sample], Layout]:
    """The items of the first layout that is there, ordered by id.

    Raises:
        InputError: none is there; says which folders were looked for.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give the one that holds the data set")
    for folder in folders:
        for layout in layouts:
            home = root / folder
            images, labels = _Files(home / layout.images), _Files(home / layout.labels)
            if not images.folder.is_dir() or not labels.folder.is_dir():
                continue
            if found := _samples(home, layout, images, labels):
                for files in (images, labels):
                    files.warn_left_out()
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

    def warn_left_out(self) -> None:
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
