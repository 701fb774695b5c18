"""PASCAL Context's label maps of 59 classes and background, from its `LabelMap` of 459 labels.

The annotations (trainval.tar.gz of the data set's page) are one MATLAB file per picture with the matrix `LabelMap`;
its numbers are those of the page's labels.txt, here `assets/labels/context459.txt`. The 59 evaluated classes are found
in it by name, which gives the numbers that the field's converters list (the `_mapping` of mmsegmentation's
pascal_context.py). Label pictures are read as well, with the list of what their numbers mean where it is another.

SciPy's reader for these files executes no code (scipy/scipy pull request 25166); newer HDF5 files it refuses.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ttd.benchmarks.classes import read_classes
from ttd.benchmarks.label_files import read_labels
from ttd.benchmarks.making_maps import MapJob, annotation_files
from ttd.benchmarks.number_names import read_numbers
from ttd.errors import InputError
from ttd.images import MAX_PIXELS

_MATRIX = "LabelMap"
_UNKNOWN = 255
_NUMBERS = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "double", "single")
# The page's own 59_labels.txt calls three classes by other names than its labels.txt.
_OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def context_maps(source: Path, folder: Path, labels: str | Path = "context459") -> list[MapJob]:
    """`ID.png` in `folder` for every `ID.mat` (or, without any, every `ID.png`) under `source`: 0 is background, 1 to
    59 are the classes of `context60` in its order.

    Args:
        source: holds the annotations.
        folder: for `SegmentationClassContext`.
        labels: what the stored numbers mean, see `read_numbers`.
    """
    table = class_table(read_numbers(labels))
    pattern = "*.mat" if any(source.rglob("*.mat")) else "*.png"
    found = annotation_files(source, pattern, "PASCAL Context's .mat files (trainval) or label pictures")
    read = read_label_map if pattern == "*.mat" else read_labels

    def make(path: Path) -> np.ndarray:
        return to_classes(read(path), table, path)

    return [MapJob(path.stem, folder / f"{path.stem}.png", partial(make, path)) for path in found]


def class_table(names: dict[int, str]) -> np.ndarray:
    """Stored number -> class of `context60`, uint8; 255 for numbers that mean nothing, 0 for what is background.

    Raises:
        InputError: one of the 59 classes has no number.
    """
    wanted = {_plain(title): number for number, title in enumerate(read_classes("context60").titles) if number}
    table = np.full(max(names) + 1, _UNKNOWN, np.uint8)
    table[0] = 0
    for number, name in names.items():
        if number > 0:
            plain = _plain(name)
            table[number] = wanted.get(_OTHER_NAMES.get(plain, plain), 0)
    if missing := sorted(set(wanted.values()) - set(table.tolist())):
        title = read_classes("context60").titles[missing[0]]
        raise InputError(f"the list of labels has no {title!r}: give PASCAL Context's labels.txt")
    return table


def to_classes(values: np.ndarray, table: np.ndarray, path: Path) -> np.ndarray:
    """Classes, uint8 [H,W], of stored numbers [H,W]; raises `InputError` at a number that means nothing."""
    if values.size and (values.min() < 0 or values.max() >= len(table)):
        raise InputError(f"{path} holds numbers {values.min()} to {values.max()}, the list of labels ends at "
                         f"{len(table) - 1}: give the list that belongs to it (--labels)")  # fmt: skip
    classes = table[values]
    if (classes == _UNKNOWN).any():
        stray = int(values[classes == _UNKNOWN][0])
        raise InputError(f"{path} holds the number {stray}, which the list of labels does not name")
    return np.asarray(classes)


def read_label_map(path: Path) -> np.ndarray:
    """The matrix `LabelMap` of a MATLAB file (version 5 to 7.2), int64 [H,W].

    Raises:
        InputError: missing, damaged, another version, no such matrix of whole numbers.
    """
    from scipy.io import loadmat, whosmat

    try:
        with path.open("rb") as stream:
            shape, kind = {name: (shape, kind) for name, shape, kind in whosmat(stream)}.get(_MATRIX, ((), ""))
            # Checked before the matrix is read: a header may claim anything.
            if kind not in _NUMBERS or len(shape) != 2 or not 0 < shape[0] * shape[1] <= MAX_PIXELS:
                raise InputError(f"{path} has no matrix {_MATRIX} of numbers: it is none of PASCAL Context's files")
            stream.seek(0)
            values = np.asarray(loadmat(stream, variable_names=[_MATRIX])[_MATRIX])
    except InputError:
        raise
    # The reader raises anything on damaged files: ValueError, TypeError, zlib.error, NotImplementedError ...
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is damaged or no MATLAB file of version 5 to 7.2 ({reason}): get it again") from error
    whole = values.astype(np.int64)
    if (whole != values).any():
        raise InputError(f"{path}: {_MATRIX} must hold whole numbers")
    return whole


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
