"""Held-out scenes on which good and bad models differ: what the demo and the page show."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ttd.scenes.scene import Scene, Scenes

MOST_DESCRIBED = 0.8  # share of the image that the caption describes


def example_scenes(seed: int) -> Iterator[Scene]:
    """Scenes of the test split, without end.

    The caption names two things that are there and one that is not, and leaves part of the image
    undescribed: neither selecting every noun nor marking the whole image is right.
    """
    scenes = Scenes("test", seed)
    for index in count():
        scene = scenes[index]
        if len(scene.true_words) >= 2 and scene.absent_words and scene.union_mask.mean() <= MOST_DESCRIBED:
            yield scene
