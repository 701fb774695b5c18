"""Scenes painted beforehand, as patches on disk: training reads them faster than they could be painted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from tqdm import tqdm

from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.schema import each, fields, mapping, text
from ttd.scenes.scene import Scenes

PATCH = 16
_CARD = fields({"world": mapping(), "labels": each(each(text))})
_CHUNK = 500


class ScenePool:
    """`count` scenes of a split: `patches` uint8 [count, n, 3*16*16] (channel, row, column) and `labels`.

    Painted once into `folder` by all cores and mapped from there afterwards; a pool that was interrupted, or made
    for other scenes, is painted again.
    """

    def __init__(self, folder: Path, scenes: Scenes, count: int) -> None:
        name = f"{scenes.split}-{scenes.seed}-{scenes.size}px-{count}"
        self.scenes, self.grid = scenes, scenes.size // PATCH
        patches, labels = folder / f"{name}.npy", folder / f"{name}.json"
        wanted = {"objects": list(scenes.objects), "nouns": list(scenes.nouns), "styles": list(scenes.styles)}
        content = read_json(labels, _CARD) if labels.exists() else {}
        if content.get("world") != wanted:
            folder.mkdir(parents=True, exist_ok=True)
            content = {"world": wanted, "labels": _paint(patches, scenes, count)}
            write_file(labels, json.dumps(content))
        self.patches: np.ndarray = np.load(patches, mmap_mode="r")
        self.labels: list[tuple[str, ...]] = [tuple(names) for names in content["labels"]]

    def __len__(self) -> int:
        return len(self.labels)


def to_patches(image: np.ndarray) -> np.ndarray:
    """Cuts uint8 [H, W, 3] into [H/16 * W/16, 3*16*16], each patch as (channel, row, column)."""
    rows, columns = image.shape[0] // PATCH, image.shape[1] // PATCH
    split = image.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return split.reshape(rows * columns, -1)


def mirror_patches(patches: np.ndarray, grid: int) -> np.ndarray:
    """Patches [B, grid*grid, 3*16*16] of the mirrored images."""
    shape = patches.shape
    return patches.reshape(len(patches), grid, grid, 3, PATCH, PATCH)[:, :, ::-1, ..., ::-1].reshape(shape)


def _paint(path: Path, scenes: Scenes, count: int) -> list[tuple[str, ...]]:
    grid = scenes.size // PATCH
    target = open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, grid * grid, 3 * PATCH * PATCH))
    labels: list[tuple[str, ...]] = []
    with tqdm(total=count, desc=f"painting {scenes.size} px scenes", unit="scene", disable=None) as bar:
        for patches, names in _chunks(scenes, count):
            target[len(labels) : len(labels) + len(names)] = patches
            labels += names
            bar.update(len(names))
    target.flush()
    return labels


def _chunks(scenes: Scenes, count: int) -> Iterator[tuple[np.ndarray, list[tuple[str, ...]]]]:
    """The scenes in order, painted by all cores where there are enough of them to pay for the processes."""
    starts = range(0, count, _CHUNK)
    if len(starts) == 1:
        yield _paint_chunk(scenes, 0, count)
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        yield from workers.map(_paint_chunk, repeat(scenes), starts, repeat(count))


def _paint_chunk(scenes: Scenes, start: int, count: int) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    painted = [scenes.paint(i) for i in range(start, min(start + _CHUNK, count))]
    return np.stack([to_patches(image) for image, _, _ in painted]), [labels for _, _, labels in painted]
