"""Derived label maps: one PNG file per picture, made from official annotations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ttd.atomic import whole_file
from ttd.errors import InputError


@dataclass(frozen=True)
class MapJob:
    """One label map to make.

    Attributes:
        name: of the picture, for messages.
        out: the PNG file.
        make: gives the labels, uint8 [H,W]; raises `InputError` where the annotation cannot be used.
    """

    name: str
    out: Path
    make: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Made:
    """What became of the jobs: files made now, files that were there, and name and reason of the skipped ones."""

    made: int
    kept: int
    skipped: list[tuple[str, str]]


def make_maps(jobs: Sequence[MapJob]) -> Made:
    """Writes every label map that is not there yet; each file appears whole, so a run can be killed and repeated."""
    made = kept = 0
    skipped: list[tuple[str, str]] = []
    for job in tqdm(jobs, desc="label maps", disable=None):
        if job.out.is_file():
            kept += 1
            continue
        try:
            labels = job.make()
        except InputError as error:
            skipped.append((job.name, str(error)))
            continue
        with whole_file(job.out) as part:
            Image.fromarray(labels.astype(np.uint8)).save(part, format="PNG")
        made += 1
    return Made(made, kept, skipped)


def annotation_files(folder: Path, pattern: str, what: str) -> list[Path]:
    """The files of a folder and its folders, ordered by path.

    Raises:
        InputError: `folder` is none, or holds none of them.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: --annotations must be the one that holds {what}")
    if not (found := sorted(folder.rglob(pattern))):
        raise InputError(f"{folder} holds no {pattern}: --annotations must be the folder that holds {what}")
    return found
