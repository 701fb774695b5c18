"""Captions against images: what is scored, and the scores of a batch against plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.colour_encoder import ColourEncoder
from tests.tolerance import COLOURS, assert_close
from ttd.encoders.calibration import Calibration
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.views import View, ViewsOnDemand, encode_views
from ttd.selection import Selection
from ttd.tagger import candidates, score_words, tag_batch

GAP = Selection("s_pixel", "gap", 0.5)


def two_images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(seed))


def views_of(encoder: ColourEncoder, pixels: Tensor) -> tuple[View, ...]:
    return tuple(encode_views(encoder, [pixels], Options()))


def test_candidates_are_the_captions_words_or_the_callers_tags() -> None:
    words = candidates("The dog, the DOG.", None, True)
    assert [(word.text, word.index, word.start, word.end) for word in words] == [
        ("dog", 1, 4, 7),
        ("DOG", 4, 13, 16),
    ]
    assert [word.text for word in candidates("a dog", None, False)] == ["a", "dog"]
    tags = candidates("a dog", [" red ball ", "the"], True)
    assert [(tag.text, tag.index, tag.start, tag.end) for tag in tags] == [
        ("red ball", 0, -1, -1),
        ("the", 1, -1, -1),
    ]


@pytest.mark.parametrize(
    ("caption", "tags", "message"),
    [
        (None, None, "caption is empty"),
        (" ", None, "caption is empty"),
        ("on the , .", None, "no words are left of the caption 'on the , .'"),
        ("a dog", [], "tags: give at least one"),
        ("a dog", ["dog", " "], "none of them empty"),
    ],
)
def test_nothing_to_score(caption: str | None, tags: list[str] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        candidates(caption, tags, True)


@pytest.mark.parametrize(
    ("score", "selection"),
    [
        ("s_pixel", "gap"), ("s_pixel", "min-max"), ("s_seg", "threshold"), ("s_image", "softmax"),
        ("s_text", "softmax"), ("s_image+s_text", "softmax"), ("s_image+s_text", "min-max"),
        ("s_pixel", "calibrated"), ("s_image", "calibrated"), ("s_image+s_text", "calibrated"),
    ],
)  # fmt: skip
def test_a_batch_with_captions_of_two_lengths(score: str, selection: str) -> None:
    encoder, pixels = ColourEncoder(), two_images()
    encoder.calibration = Calibration(8.0, 0.3)
    text = normalize(torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    caption = normalize(torch.randn(2, 4, generator=torch.Generator().manual_seed(2)), dim=-1)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    found = score_words(
        encoder, views_of(encoder, pixels), text, Selection(score, selection, 0.5), caption=caption, valid=valid
    )
    dense = encoder.encode_pixels(pixels).numpy().reshape(2, 4, -1)
    for i, number in ((0, 4), (1, 2)):
        words = text[i, :number].numpy()
        wanted = by_numpy(score, selection, dense[i], words, caption[i].numpy(), encoder.logit_scale)
        # A mean over 24 cells; softmax makes up to 10 / 4 of an error, the calibration 8 / 4, min-max two of it over
        # the range, 1 / 10 here.
        assert_close(found[i, :number], wanted, COLOURS + 24, scale=20 if selection == "min-max" else 10 / 4)


def by_numpy(
    score: str, selection: str, dense: np.ndarray, words: np.ndarray, caption: np.ndarray, logit_scale: float
) -> np.ndarray:
    """One image: dense [C,cells], words [N,C]."""
    if score == "s_pixel":
        parts = [(words @ dense).max(1)]
    elif score == "s_seg":
        best = (words @ dense).argmax(0)
        parts = [np.array([(best == n).mean() for n in range(len(words))])]
    else:
        mean = dense.mean(1)
        image, text = words @ (mean / np.linalg.norm(mean)), words @ caption
        parts = {"s_image": [image], "s_text": [text], "s_image+s_text": [image, text]}[score]
    if selection == "softmax":
        parts = [np.exp(p * logit_scale) / np.exp(p * logit_scale).sum() for p in parts]
    if selection == "calibrated":
        parts = [1 / (1 + np.exp(-8 * (p - 0.3))) for p in parts]
    if selection == "min-max":
        parts = [(p - p.min()) / (p.max() - p.min()) for p in parts]
    return np.sum(parts, axis=0)


@pytest.mark.parametrize("at_once", [100, 3, 1])
def test_words_in_parts_score_alike_and_images_are_encoded_once(at_once: int) -> None:
    encoder, pixels = ColourEncoder(), two_images()
    text = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    whole = score_words(encoder, views_of(encoder, pixels), text, GAP)
    encoder.images_seen = 0
    in_parts = score_words(encoder, ViewsOnDemand(encoder, [pixels], Options()), text, GAP, at_once=at_once)
    assert_close(in_parts, whole, COLOURS)
    assert encoder.images_seen == 2


def test_a_batch_of_captions_encodes_every_distinct_word_once() -> None:
    encoder = ColourEncoder()
    pixels = torch.full((2, 3, 16, 24), -1.0)
    pixels[0, 0] = pixels[1, 2] = 1.0  # a red image and a blue one
    asked: list[list[str]] = []

    def encode(texts: Sequence[str]) -> Tensor:
        asked.append(list(texts))
        return encoder.encode_text(texts)

    captions = ["Red, red, blue", "a blue"]
    words = [candidates(caption, None, True) for caption in captions]
    first, second = tag_batch(encoder, views_of(encoder, pixels), captions, words, GAP, encode)
    assert asked == [["red", "blue"]]
    assert [(word.text, word.selected) for word in first.words] == [
        ("Red", True),
        ("red", True),
        ("blue", False),
    ]
    assert first.words[0].score == first.words[1].score  # one word, scored once
    assert_close(first.words[0].score, 1.0, COLOURS)
    assert (first.caption, first.score, first.selection, first.threshold) == (
        captions[0], "s_pixel", "gap", None,
    )  # fmt: skip
    assert [(word.text, word.start, word.selected) for word in second.words] == [("blue", 2, True)]


def test_the_callers_tags_stand_in_no_caption() -> None:
    encoder = ColourEncoder()
    words = [candidates(None, ["red", "blue"], True)]
    rule = Selection("s_seg", "threshold", 0.25)
    (tagging,) = tag_batch(encoder, views_of(encoder, two_images()[:1]), [None], words, rule, encoder.encode_text)
    assert tagging.threshold == 0.25
    assert all(word.start is None and word.end is None for word in tagging.words)
