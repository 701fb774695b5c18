"""Scenes as files: image-text tar shards to train on, or a TagMask set to evaluate with."""

from __future__ import annotations

import io
import json
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ttd.files import write_file
from ttd.runs import FileToMake, make_files
from ttd.scenes.drawing import Draws
from ttd.scenes.nouns import WORDS
from ttd.scenes.scene import Scene, SceneCaption, Scenes
from ttd.text.words import split_words

_WRONG_STREAM = 2000
_ELSEWHERE = 10_000_000  # beyond any training set, so a wrong caption belongs to no scene


def write_shards(
    scenes: Scenes,
    count: int,
    folder: Path,
    per_shard: int = 1000,
    start: int = 0,
    *,
    captions: int = 1,
    wrong_percent: int = 0,
) -> list[Path]:
    """Writes scenes start .. start+count-1 as `00000.tar`, `00001.tar` ... of `.png`, `.txt`, `.json` (the truth).

    The same scenes give the same bytes. A shard that is already there is kept, so an interrupted call goes on.

    Args:
        scenes: the world.
        count, start: which of its scenes.
        folder: of the shards.
        per_shard: scenes in a shard.
        captions: how many captions each scene has; more than one are listed in the `.json` as "captions".
        wrong_percent: of a hundred scenes, how many get the captions of another scene, as pairs from the web do.
    """
    numbers = range(start, start + count)
    units = []
    for shard, first in enumerate(range(0, count, per_shard)):
        path = folder / f"{shard:05d}.tar"
        write = partial(_write_shard, scenes, numbers[first : first + per_shard], captions, wrong_percent)
        units.append(FileToMake(path.name, path, write))
    with tqdm(total=len(units), desc="shards", disable=None) as bar:
        make_files(units, progress=bar.update)
    return [unit.path for unit in units]


def _write_shard(scenes: Scenes, numbers: range, captions: int, wrong_percent: int, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in numbers:
            image, _, labels = scenes.paint(number)
            said, wrong = _captions(scenes, number, labels, captions, wrong_percent)
            truth: dict[str, object] = {"caption": said[0].text, "labels": labels}
            truth["true"] = sorted({word for one in said for word in one.true} & set(labels))
            if captions > 1:
                truth["captions"] = [one.text for one in said]
            if wrong_percent:
                truth["wrong"] = wrong
            _add(tar, f"{number:08d}.png", png_bytes(image))
            _add(tar, f"{number:08d}.txt", said[0].text.encode())
            _add(tar, f"{number:08d}.json", json.dumps(truth).encode())


def _captions(
    scenes: Scenes, number: int, labels: tuple[str, ...], count: int, wrong_percent: int
) -> tuple[list[SceneCaption], bool]:
    """The captions of a scene, and whether they are another scene's."""
    wrong = Draws(scenes.seed, _WRONG_STREAM, number).chance(wrong_percent)
    if wrong:
        number += _ELSEWHERE
        labels = scenes.paint(number)[2]
    return [scenes.caption(number, labels, epoch) for epoch in range(count)], wrong


def write_tagmask(scenes: Scenes, count: int, folder: Path, start: int = 0) -> None:
    """Writes a TagMask set: `images/`, `masks/ID.png`, `masks/ID/WORD.png`, `vocabulary.txt` (every word of the world)
    and `tags.jsonl` (written last); with the label maps and classes of `ttd eval folder` (`labels/`, `classes.txt`)."""
    rows = []
    number_of = {word: number for number, word in enumerate(WORDS)}
    for number in tqdm(range(start, start + count), desc="scenes", disable=None):
        scene, name = scenes[number], f"{number:08d}"
        write_file(folder / "images" / f"{name}.png", png_bytes(scene.image))
        write_file(folder / "masks" / f"{name}.png", _mask_bytes(scene.union_mask))
        for word, mask in scene.word_masks.items():
            write_file(folder / "masks" / name / f"{word}.png", _mask_bytes(mask))
        classes = np.array([number_of[label] for label in scene.labels], np.uint8)
        write_file(folder / "labels" / f"{name}.png", png_bytes(classes[scene.label_map]))
        rows.append(json.dumps(tagmask_row(name, scene)))
    for name in ("vocabulary.txt", "classes.txt"):
        write_file(folder / name, "\n".join(WORDS) + "\n")
    write_file(folder / "tags.jsonl", "\n".join(rows) + "\n")


def tagmask_row(name: str, scene: Scene) -> dict[str, object]:
    """The line of `tags.jsonl` for one scene: every word of the caption, which are true, and all that is there."""
    words = [word.text for word in split_words(scene.caption)]
    return {
        "id": name,
        "caption": scene.caption,
        "words": words,
        "true": [word for word in dict.fromkeys(words) if word in scene.true_words],
        "present": list(scene.labels),
    }


def png_bytes(image: np.ndarray) -> bytes:
    """A lossless PNG of an image or mask."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _mask_bytes(mask: np.ndarray) -> bytes:
    return png_bytes(mask.astype(np.uint8) * 255)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
