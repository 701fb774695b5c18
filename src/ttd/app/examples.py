"""Images with captions to try on the page: drawn scenes, or those of a folder that the command names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from ttd.data.bad_samples import BadSample
from ttd.data.sources import PairSource
from ttd.errors import InputError
from ttd.scenes.scene import example_scenes
from ttd.viz.overlays import bounded, save_png

_log = logging.getLogger(__name__)

_DRAWN = 6
_MOST = 24
_SIDE = 1600  # pixels of the longer side of a copy
_SEED = 1  # as `ttd demo`


@dataclass(frozen=True)
class Example:
    """An image file, its caption, and what the image shows, separated by commas ("": unknown)."""

    path: Path
    caption: str
    tags: str = ""


def drawn_examples(folder: Path, number: int = _DRAWN) -> list[Example]:
    """Draws scenes whose captions name two things that are in the image and one that is not.

    Args:
        folder: for the PNGs; made where it is missing.
        number: of scenes.
    """
    examples = []
    for scene in islice(example_scenes(_SEED), number):
        path = folder / f"scene-{scene.index}.png"
        save_png(Image.fromarray(scene.image), path)
        examples.append(Example(path, scene.caption, ", ".join((*scene.nouns, scene.background))))
    return examples


def folder_examples(source: str, folder: Path) -> list[Example]:
    """Copies the first images of a folder, with their captions, to where the page may read them.

    Args:
        source: a folder of images with `NAME.txt`, or what else `PairSource` reads.
        folder: for the copies, which have no metadata of the photos.

    Raises:
        InputError: there is no image with a caption.
    """
    pairs = PairSource(source)
    examples = []
    for number in range(min(len(pairs), _MOST)):
        try:
            pair = pairs[number]
        except BadSample as error:
            _log.warning("left out of the examples: %s", error)
            continue
        path = folder / f"example-{number}.png"
        save_png(bounded(pair.image, _SIDE), path)
        examples.append(Example(path, pair.captions[0]))
    if not examples:
        raise InputError(f"{source} holds no image with a caption: write the caption of NAME.jpg into NAME.txt")
    return examples
