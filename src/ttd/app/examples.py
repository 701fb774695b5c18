"""Pictures to try: held-out scenes of the embedded world, with captions that are not all true."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from ttd.pictures import save_png
from ttd.scenes import Scenes

NUMBER = 6
SEED = 1  # as `ttd demo`
_MOST_DESCRIBED = 0.8  # share of the picture that a caption describes


@dataclass(frozen=True)
class Example:
    """A picture on disk, its caption, and what is in it, apart by commas."""

    path: Path
    caption: str
    tags: str


def write_examples(folder: Path, number: int = NUMBER) -> list[Example]:
    """Draw `number` scenes whose caption names two things that are there and one that is not.

    Args:
        folder: where the PNGs go; made where it is missing.
        number: how many.
    """
    scenes = Scenes("test", seed=SEED)
    found: list[Example] = []
    for index in count():
        if len(found) == number:
            return found
        scene = scenes[index]
        telling = len(scene.true_words) >= 2 and scene.absent_words and scene.union_mask.mean() <= _MOST_DESCRIBED
        if telling:
            path = folder / f"scene-{index}.png"
            save_png(Image.fromarray(scene.image), path)
            found.append(Example(path, scene.caption, ", ".join((*scene.nouns, scene.background))))
    raise AssertionError("scenes have no end")
