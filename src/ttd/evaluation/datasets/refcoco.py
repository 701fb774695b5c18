"""RefCOCO, RefCOCO+ and RefCOCOg: expressions, each about one object of an image, in the files of their authors.

    NAME/refs(BY).p         a pickled list of {"split", "image_id", "ann_id", "sentences": [{"sent_id", "sent"}]}
    NAME/instances.json     COCO's instances of these images
    train2014/              the images

The same objects were divided into splits by several authors (BY): unc (Yu et al.), google (Mao et al.), umd (Nagaraja
et al.).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttd.data.rows import read_coco_json
from ttd.errors import InputError
from ttd.evaluation.benchmark import Sample
from ttd.evaluation.datasets.coco import instance_mask
from ttd.evaluation.datasets.layouts import image_folder
from ttd.files.safe_paths import check_path


class _Refused(Exception):
    """The file asks for something that is not plain data."""


# The slower unpickler written in Python: the one in C can be made to claim any amount of memory by one instruction.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"it asks for {module}.{name}"[:200])

    def get_extension(self, code: int) -> None:
        raise _Refused("it asks for an object that this program registered")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it asks for an object that is stored elsewhere")


def read_plain_pickle(path: Path) -> Any:
    """The dictionaries, lists, tuples, sets, texts, bytes, numbers, True, False and None of a pickle file.

    No class or function is ever looked up, so nothing in the file can run. Texts that Python 2 wrote as bytes are read
    as UTF-8.

    Raises:
        InputError: missing, damaged, or it holds anything else.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="utf-8", errors="surrogateescape").load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: get the data set's annotations and give their folder") from None
    except _Refused as error:
        raise InputError(
            f"{path} is refused, because it could run code: {error}; get the file from the data set's own site"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file and its folder") from None
    # A damaged stack of instructions fails in any way: EOFError, IndexError, KeyError, struct.error, MemoryError ...
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path} is not a readable pickle file ({reason}): download it again") from None


# Splits by who made them; the first one is taken where none is named.
PARTITIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "refcoco": {"unc": ("val", "testA", "testB"), "google": ("val", "test")},
    "refcoco+": {"unc": ("val", "testA", "testB")},
    "refcocog": {"umd": ("val", "test"), "google": ("val",)},
}
_IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014", "images")


@dataclass(frozen=True)
class Expression:
    """A text and the object that it means.

    Attributes:
        id: number of the sentence, unique in the data set.
        text: as written.
        annotation: number of the object.
    """

    id: int
    text: str
    annotation: int


@dataclass(frozen=True)
class ReferImage:
    """An image with all its expressions of one split.

    Attributes:
        sample: id (the file's name) and file.
        size: (H, W) in pixels.
        expressions: in the order of their numbers.
        segmentations: of the objects by number, polygons or run lengths.
    """

    sample: Sample
    size: tuple[int, int]
    expressions: tuple[Expression, ...]
    segmentations: dict[int, Any]

    def mask(self, annotation: int) -> np.ndarray:
        """An object's pixels, bool [H,W]; raises `InputError` where its segmentation is unusable."""
        try:
            mask = instance_mask(self.segmentations[annotation], self.size)
        except InputError as error:
            raise InputError(f"object {annotation}: {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError):
            raise InputError(f"object {annotation} has a damaged segmentation: download instances.json again") from None
        if not mask.any():
            raise InputError(f"object {annotation} covers no pixel of its image, so nothing can be found: leave it out")
        return mask


@dataclass(frozen=True)
class ReferSet:
    """One split of a data set.

    Attributes:
        name, by, split: which.
        root: its folder.
        images: ordered by their number.
        wordless: how many expressions were left out because they are empty.
    """

    name: str
    by: str
    split: str
    root: Path
    images: Sequence[ReferImage]
    wordless: int


def read_refer(name: str, root: Path, split: str = "val", by: str | None = None) -> ReferSet:
    """Reads one split.

    Args:
        name: of `PARTITIONS`.
        root: the folder that holds NAME, or NAME itself; images below it or beside NAME.
        split: as the set's authors call it.
        by: who divided; None: the usual one ("unc", for RefCOCOg "umd").

    Raises:
        InputError: an unknown split, a missing, damaged or refused file, or no images.
    """
    by = _partition(name, split, by)
    home = _home(name, root, by)
    path = home / f"refs({by}).p"
    rows, wordless = _expressions(read_plain_pickle(path), path, split)
    if not rows:
        raise InputError(f"{path} holds no expression of the split {split}: download the file again")
    images = _images(rows, home / "instances.json", _image_folders(root, home))
    return ReferSet(name, by, split, root, images, wordless)


def _partition(name: str, split: str, by: str | None) -> str:
    """Who divided; checks that there is such a split."""
    known = PARTITIONS[name]
    by = by or next(iter(known))
    if by not in known:
        raise InputError(f"{name} was not divided by {by!r}: choose from {', '.join(known)}")
    if split not in known[by]:
        raise InputError(f"{name} ({by}) has no split {split!r}: choose from {', '.join(known[by])}")
    return by


def _home(name: str, root: Path, by: str) -> Path:
    """The folder of the annotations."""
    homes = (root / name, root, root / name / "annotations", root / "annotations")
    for home in homes:
        if (home / f"refs({by}).p").is_file():
            return home
    raise InputError(f"{root} holds no {name}/refs({by}).p: give the folder with {name} or {name} itself")


def _image_folders(root: Path, home: Path) -> list[Path]:
    bases = dict.fromkeys((root, home, home.parent, root.parent))
    return [base / folder for base in bases for folder in _IMAGE_FOLDERS]


def _expressions(content: Any, path: Path, split: str) -> tuple[dict[int, list[Expression]], int]:
    """The expressions of one split by image, and how many are empty."""
    if not isinstance(content, list):
        raise InputError(f"{path} holds no list of expressions: download the file again")
    rows: dict[int, list[Expression]] = {}
    wordless = 0
    for number, ref in enumerate(content):
        try:
            if ref["split"] != split:
                continue
            image, annotation = int(ref["image_id"]), int(ref["ann_id"])
            found = [(int(row["sent_id"]), row["sent"]) for row in ref["sentences"]]
            if not all(isinstance(text, str) for _, text in found):
                raise TypeError("a sentence is not text")
        except (ArithmeticError, KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"{path}: entry {number} lacks what an expression has ({error}): download it again"
            ) from None
        written = [Expression(key, text, annotation) for key, text in found if text.strip()]
        wordless += len(found) - len(written)
        if written:
            rows.setdefault(image, []).extend(written)
    return {image: sorted(rows[image], key=lambda e: (e.id, e.annotation)) for image in sorted(rows)}, wordless


def _images(rows: dict[int, list[Expression]], path: Path, folders: Sequence[Path]) -> list[ReferImage]:
    content = read_coco_json(path, ("images", "annotations"))
    wanted = {expression.annotation for found in rows.values() for expression in found}
    try:
        images = {int(i["id"]): i for i in content["images"] if int(i["id"]) in rows}
        objects = {int(a["id"]): a for a in content["annotations"] if int(a["id"]) in wanted}
        names = {n: check_path(i["file_name"], path, "file_name") for n, i in images.items()}
        files = {n: (names[n], (int(i["height"]), int(i["width"]))) for n, i in images.items()}
        segmentations = {n: a["segmentation"] for n, a in objects.items()}
        owner = {n: int(a["image_id"]) for n, a in objects.items()}
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks what COCO's instances have ({error}): download it again") from None
    if lost := sorted(set(rows) - set(files)):
        raise InputError(f"{path} does not list image {lost[0]} of the expressions: the files do not belong together")
    for image, found in rows.items():
        if stray := [e.annotation for e in found if owner.get(e.annotation) != image]:
            raise InputError(f"{path} has no object {stray[0]} in image {image}: the files do not belong together")
    folder = image_folder(folders, [name for name, _ in files.values()])
    return [
        ReferImage(
            Sample(files[image][0], folder / files[image][0]),
            files[image][1],
            tuple(found),
            {e.annotation: segmentations[e.annotation] for e in found},
        )
        for image, found in rows.items()
    ]
