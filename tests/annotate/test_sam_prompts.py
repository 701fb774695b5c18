"""How points and boxes become questions to SAM-HQ, and a small random SAM-HQ that answers them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.annotate.samples import COLOURS, SIZE, colour_model, halves
from tests.tiny_models import tiny_sam_model
from ttd.annotate.masks import Prompts
from ttd.annotate.proposals import Proposer, mask_from_sam
from ttd.refine.sam import SAMPrediction, SAMRefiner


@pytest.fixture(scope="module")
def sam() -> SAMRefiner:
    return SAMRefiner(tiny_sam_model())


class Asked(SAMRefiner):
    """Remembers the questions; answers with the real small model."""

    def __init__(self, refiner: SAMRefiner) -> None:
        super().__init__(refiner.model)
        self.questions: list[tuple[Any, Any, Any, bool]] = []
        self.encoded = 0

    def encode(self, image: Any) -> Any:
        self.encoded += 1
        return super().encode(image)

    def predict(
        self, embedding: Any, points: Any = None, labels: Any = None, boxes: Any = None, mask: Any = None,
        multimask: bool = False,
    ) -> SAMPrediction:  # fmt: skip
        self.questions.append((points, labels, boxes, multimask))
        return super().predict(embedding, points, labels, boxes, mask, multimask)


def ask(sam: SAMRefiner, prompts: Prompts) -> tuple[list[tuple[Any, Any, Any, bool]], np.ndarray]:
    asked = Asked(sam)
    return asked.questions, mask_from_sam(asked, asked.encode(halves("red", "green")), prompts)


def test_one_point_lets_sam_choose_the_whole_or_a_part(sam: SAMRefiner) -> None:
    questions, mask = ask(sam, Prompts().with_point(5, 6, True))
    assert questions == [([[(5, 6)]], [[1]], None, True)]
    assert mask.shape == SIZE


def test_points_go_together_and_outside_ones_with_every_question(sam: SAMRefiner) -> None:
    prompts = Prompts().with_point(5, 6, True).with_point(40, 6, False).with_point(30, 20, True)
    questions, _ = ask(sam, prompts.with_box(10, 10, 0, 0))
    assert questions == [
        ([[(5, 6), (40, 6)]], [[1, 0]], [(0, 0, 10, 10)], False),
        ([[(30, 20), (40, 6)]], [[1, 0]], None, False),
    ]


def test_boxes_are_united(sam: SAMRefiner) -> None:
    _, one = ask(sam, Prompts().with_box(0, 0, 20, 20))
    _, other = ask(sam, Prompts().with_box(25, 5, 40, 30))
    questions, both = ask(sam, Prompts().with_box(0, 0, 20, 20).with_box(25, 5, 40, 30))
    assert [q[2] for q in questions] == [[(0, 0, 20, 20)], [(25, 5, 40, 30)]]
    assert np.array_equal(both, one | other)


def test_the_image_is_encoded_once_for_all_questions(sam: SAMRefiner) -> None:
    asked = Asked(sam)
    proposer = Proposer(colour_model(), asked)
    encoded = proposer.encode(_image(), "a red wall beside a green door")
    first = proposer.mask(encoded, "red", Prompts())
    # Without a point SAM-HQ redraws our own map: it was asked with a box and a mask, as in the paper's B.5.
    assert asked.questions[0][2] is not None
    pointed = proposer.mask(encoded, "red", Prompts().with_point(5, 6, True))
    assert not np.array_equal(first, pointed)
    count = len(asked.questions)
    assert np.array_equal(proposer.mask(encoded, "red", Prompts().with_point(5, 6, True)), pointed)
    assert (asked.encoded, len(asked.questions)) == (1, count)
    assert not proposer.mask(encoded, "red", Prompts(empty=True)).any()
    dabbed = proposer.mask(encoded, "red", Prompts(empty=True).with_dab(4, 4, 2, True))
    assert dabbed[4, 4]
    assert dabbed.sum() == 13


def _image() -> Any:
    from PIL import Image

    return Image.fromarray(halves(*list(COLOURS)[:2]))
