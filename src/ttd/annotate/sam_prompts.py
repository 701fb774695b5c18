"""A person's points and boxes -> questions to SAM-HQ.

Every box is a question of its own, with the points inside the word that lie in it; the points in no box are one
more question together. Points outside the word go with every question. The answers are united.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttd.annotate.prompts import Box, Point, Prompts
from ttd.refine.sam import SAMEmbedding, SAMRefiner


def mask_from_sam(sam: SAMRefiner, embedding: SAMEmbedding, prompts: Prompts) -> NDArray[np.bool_]:
    """The mask bool [H,W] for at least one point inside or one box."""
    mask = np.zeros(embedding.size, np.bool_)
    outside = [point for point in prompts.points if not point.inside]
    for box, inside in _questions(prompts):
        points = [*inside, *outside]
        spots = [[(point.x, point.y) for point in points]] if points else None
        labels = [[int(point.inside) for point in points]] if points else None
        boxes = [(box.left, box.top, box.right, box.bottom)] if box else None
        # A lone point leaves open whether a part or the whole is meant: then SAM-HQ may draw three and take its best.
        answer = sam.predict(embedding, spots, labels, boxes, multimask=box is None and len(points) == 1)
        mask |= answer.masks[0]
    return mask


def _questions(prompts: Prompts) -> list[tuple[Box | None, Sequence[Point]]]:
    """Each box (or none) with the points inside the word that belong to it."""
    inside = [point for point in prompts.points if point.inside]
    free = [point for point in inside if not any(_holds(box, point) for box in prompts.boxes)]
    questions: list[tuple[Box | None, Sequence[Point]]] = [
        (box, [point for point in inside if _holds(box, point)]) for box in prompts.boxes
    ]
    return [*questions, (None, free)] if free else questions


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom
