"""A batch of captions scored against a batch of pictures: words in, `Tagging` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.results import TaggedWord, Tagging
from ttd.tagging import s_image, s_image_text, s_pixel, s_seg, s_text, scale_scores, select_largest_gap
from ttd.tagging import select_threshold as select_by_threshold
from ttd.texts import shortened
from ttd.views import View, average, average_feature
from ttd.words import Word, distinct, split_words

# Cosine maps of this many words are held at a time (s_pixel), however long the caption is.
WORDS_AT_ONCE = 512


@dataclass(frozen=True)
class Rule:
    """How words are scored and selected.

    Attributes:
        score: one of `ttd.tagging.SCORES`.
        selection: one of `ttd.tagging.SELECTIONS`.
        threshold: for all selections but "gap".
    """

    score: str
    selection: str
    threshold: float

    @property
    def needs_caption(self) -> bool:
        """Whether the whole caption's embedding enters the score."""
        return self.score in ("s_text", "s_image+s_text")

    def select(self, scores: Tensor, valid: Tensor | None = None) -> Tensor:
        """The selection among scores `[...,N]` that `score_words` made."""
        if self.selection == "gap":
            return select_largest_gap(scores, valid)
        return select_by_threshold(scores, self.threshold, valid)


def candidates(caption: str | None, tags: Sequence[str] | None, stop_words: bool) -> list[Word]:
    """The caller's own tags (several words each, if they like), or else the caption's words.

    Raises:
        InputError: nothing is left to score.
    """
    if tags is not None:
        words = [Word(tag.strip(), i, -1, -1) for i, tag in enumerate(tags)]
        if not words or not all(word.text for word in words):
            raise InputError("tags: give at least one, none of them empty")
        return words
    if caption is None or not caption.strip():
        raise InputError("the caption is empty: write what the picture shows")
    words = split_words(caption, stop_words=stop_words)
    if not words:
        raise InputError(
            f"no words are left of the caption {shortened(caption)!r} without stop words and punctuation: "
            "name a thing, or keep stop words"
        )
    return words


def score_words(
    encoder: Encoder,
    views: Iterable[View],
    text: Tensor,
    rule: Rule,
    *,
    caption: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """The scores that the rule's selection looks at, `[B,N]`.

    s_pixel and s_seg go over the cells of the finest view's grid (averaged over all views), not over pixels.

    Args:
        encoder: made the views.
        views: of B pictures.
        text: `[N,C]` for all pictures or `[B,N,C]`.
        rule: which score, and which scaling its selection needs.
        caption: `[B,C]`, where `rule.needs_caption`.
        valid: bool `[B,N]`.
    """
    if rule.score == "s_pixel":
        return scale_scores(_best_cells(encoder, views, text), rule.selection, encoder.logit_scale, valid)
    if rule.score == "s_seg":
        sim = average(views, lambda features: encoder.similarity(features, text))
        return scale_scores(s_seg(sim, valid), rule.selection, encoder.logit_scale, valid)
    parts = []
    if rule.score != "s_text":
        parts.append(s_image(average_feature(views), text))
    if rule.needs_caption:
        assert caption is not None
        parts.append(s_text(caption, text))
    parts = [scale_scores(part, rule.selection, encoder.logit_scale, valid) for part in parts]
    return s_image_text(*parts) if len(parts) == 2 else parts[0]


def tag_batch(
    encoder: Encoder,
    views: Iterable[View],
    captions: Sequence[str | None],
    words: Sequence[list[Word]],
    rule: Rule,
    encode_text: Callable[[list[str]], Tensor],
) -> list[Tagging]:
    """Tag B pictures; every distinct word of the batch is encoded once, by `encode_text`."""
    per_caption = [distinct(word.text for word in found) for found in words]
    every, _ = distinct(text for texts, _ in per_caption for text in texts)
    row = {text: i for i, text in enumerate(every)}
    longest = max(len(texts) for texts, _ in per_caption)
    rows = torch.tensor([[row[t] for t in texts] + [0] * (longest - len(texts)) for texts, _ in per_caption])
    valid = torch.tensor([[True] * len(texts) + [False] * (longest - len(texts)) for texts, _ in per_caption])
    valid = valid.to(encoder.device)
    text = encode_text(every)[rows.to(encoder.device)]  # (B, N, C)
    caption = encode_text([c or "" for c in captions]) if rule.needs_caption else None
    scores = score_words(encoder, views, text, rule, caption=caption, valid=valid)
    selected = rule.select(scores, valid)
    return [
        _tagging(captions[i], words[i], per_caption[i][1], scores[i].tolist(), selected[i].tolist(), rule)
        for i in range(len(captions))
    ]


def _best_cells(encoder: Encoder, views: Iterable[View], text: Tensor) -> Tensor:
    """s_pixel of any number of words, a part of them at a time."""
    parts = torch.split(text, WORDS_AT_ONCE, dim=-2)
    if len(parts) > 1:
        views = tuple(views)  # asked several times, so encoded once and kept
    scores = []
    for part in parts:
        sim = average(views, lambda features, part=part: encoder.similarity(features, part))  # type: ignore[misc]
        scores.append(s_pixel(sim))
    return torch.cat(scores, -1)


def _tagging(
    caption: str | None,
    words: list[Word],
    places: list[int],
    scores: list[float],
    selected: list[bool],
    rule: Rule,
) -> Tagging:
    tagged = tuple(
        TaggedWord(
            text=word.text,
            index=word.index,
            start=None if word.start < 0 else word.start,
            end=None if word.end < 0 else word.end,
            score=scores[place],
            selected=selected[place],
        )
        for word, place in zip(words, places, strict=True)
    )
    threshold = None if rule.selection == "gap" else rule.threshold
    return Tagging(caption, tagged, rule.score, rule.selection, threshold)
