"""Pictures to try: held-out scenes of the embedded world, with captions that are not all true."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from ttd.pictures import save_png
from ttd.scenes.telling import telling_scenes

NUMBER = 6
SEED = 1  # as `ttd demo`


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
    found = []
    for scene in islice(telling_scenes(SEED), number):
        path = folder / f"scene-{scene.index}.png"
        save_png(Image.fromarray(scene.image), path)
        found.append(Example(path, scene.caption, ", ".join((*scene.nouns, scene.background))))
    return found
