"""A batch of captions scored against a batch of images: words in, `Tagging` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.inference.views import View, average, average_feature
from ttd.negatives import NegativeWords
from ttd.results import TaggedWord, Tagging
from ttd.scoring import (
    percentiles,
    s_image,
    s_image_text,
    s_pixel,
    s_seg,
    s_text,
)
from ttd.selection import Selection
from ttd.text.embeddings import shortened
from ttd.text.words import Word, distinct, split_words

# Cosine maps of this many words are held at a time (s_pixel), however long the caption is; a caption's words
# and the most that it may borrow fit.
WORDS_AT_ONCE = 640


@dataclass(frozen=True)
class Compared:
    """Captions' words against negative ones.

    Attributes:
        percentile: `[B,N]`, 0..100: how many in a hundred negative words each word exceeds.
        count: `[B]`, how many negative words each image has.
        cut: the score that a word must exceed to be selected, by image; None where none is needed.
    """

    percentile: Tensor
    count: list[int]
    cut: list[float | None]


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
        raise InputError("the caption is empty: write what the image shows")
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
    rule: Selection,
    *,
    caption: Tensor | None = None,
    valid: Tensor | None = None,
    at_once: int = WORDS_AT_ONCE,
) -> Tensor:
    """The scores that the rule's selection looks at, `[B,N]`.

    s_pixel and s_seg go over the cells of the finest view's grid (averaged over all views), not over pixels.

    Args:
        encoder: made the views.
        views: of B images.
        text: `[N,C]` for all images or `[B,N,C]`.
        rule: which score, and which scaling its selection needs.
        caption: `[B,C]`, where `rule.needs_caption`.
        valid: bool `[B,N]`.
        at_once: words whose cosine maps are held at a time, for s_pixel.
    """

    def scaled(scores: Tensor) -> Tensor:
        return rule.found.scaled(scores, valid, encoder.logit_scale, encoder.calibration)

    if rule.score == "s_pixel":
        return scaled(_best_cells(encoder, views, text, at_once))
    if rule.score == "s_seg":
        sim = average(views, lambda features: encoder.similarity(features, text))
        return scaled(s_seg(sim, valid))
    parts = []
    if rule.score != "s_text":
        parts.append(s_image(average_feature(views), text))
    if rule.needs_caption:
        assert caption is not None
        parts.append(s_text(caption, text))
    parts = [scaled(part) for part in parts]
    return s_image_text(*parts) if len(parts) == 2 else parts[0]


def tag_batch(
    encoder: Encoder,
    views: Iterable[View],
    captions: Sequence[str | None],
    words: Sequence[list[Word]],
    rule: Selection,
    encode_text: Callable[[list[str]], Tensor],
    negatives: NegativeWords | None = None,
) -> list[Tagging]:
    """Tag B images; every distinct word of the batch is encoded once, by `encode_text`.

    `negatives` is needed where the rule compares with them.
    """
    per_caption = [distinct(word.text for word in found) for found in words]
    every, _ = distinct(text for texts, _ in per_caption for text in texts)
    row = {text: i for i, text in enumerate(every)}
    longest = max(len(texts) for texts, _ in per_caption)
    rows = torch.tensor([[row[t] for t in texts] + [0] * (longest - len(texts)) for texts, _ in per_caption])
    valid = torch.tensor([[True] * len(texts) + [False] * (longest - len(texts)) for texts, _ in per_caption])
    valid = valid.to(encoder.device)
    text = encode_text(every)[rows.to(encoder.device)]  # (B, N, C)
    caption = encode_text([c or "" for c in captions]) if rule.needs_caption else None
    if negatives is None:
        scores, compared = score_words(encoder, views, text, rule, caption=caption, valid=valid), None
        selected = rule.select(scores, valid)
    else:
        own = [[*_words(c), *(word.text for word in found)] for c, found in zip(captions, words, strict=True)]
        may = torch.tensor([negatives.others(row) for row in own], device=encoder.device)  # (B, K)
        _check_some(may, captions)
        scores, compared = compare(encoder, views, text, encode_text(negatives.texts), rule, valid, may)
        selected = rule.select(compared.percentile, valid)
    return [
        _tagging(captions[i], words[i], per_caption[i][1], scores[i], selected[i], rule, compared, i)
        for i in range(len(captions))
    ]


def compare(
    encoder: Encoder,
    views: Iterable[View],
    text: Tensor,
    negatives: Tensor,
    rule: Selection,
    valid: Tensor | None = None,
    negatives_valid: Tensor | None = None,
) -> tuple[Tensor, Compared]:
    """Score words and negative words by s_pixel in one look at the views.

    Args:
        encoder, views, rule: as for `score_words`.
        text: `[N,C]` or `[B,N,C]`.
        negatives: `[K,C]`.
        valid: bool `[B,N]`.
        negatives_valid: bool `[B,K]`, False where an image must not be compared with a word.

    Returns:
        the words' scores `[B,N]`, and how they compare.
    """
    number = text.shape[-2]
    null = negatives.expand(*text.shape[:-2], *negatives.shape)
    both = score_words(encoder, views, torch.cat([text, null], -2), rule)
    scores, others = both[:, :number], both[:, number:]
    there = torch.ones_like(others, dtype=torch.bool) if negatives_valid is None else negatives_valid
    ranks = percentiles(scores, others, valid, there)
    counts = there.sum(-1).tolist()
    cuts = [_cut(row[may], rule.percentile) for row, may in zip(others, there, strict=True)]
    return scores, Compared(ranks, counts, cuts)


def _cut(null: Tensor, percentile: float) -> float | None:
    """The highest of the scores `[K]` that a word must exceed to reach that percentile of them."""
    reached = 100 * torch.arange(len(null) + 1, device=null.device).float() / len(null)
    needed = int((reached >= percentile).int().argmax())
    return float(null.sort().values[needed - 1]) if needed else None


def _words(caption: str | None) -> list[str]:
    return [word.text for word in split_words(caption or "")]


def _check_some(may: Tensor, captions: Sequence[str | None]) -> None:
    for caption, some in zip(captions, may.any(-1).tolist(), strict=True):
        if not some:
            raise InputError(
                f"every negative word is one of the caption's own, or akin to one ({shortened(caption or '')!r}): "
                "give others to compare with"
            )


def _best_cells(encoder: Encoder, views: Iterable[View], text: Tensor, at_once: int) -> Tensor:
    """s_pixel of any number of words, a part of them at a time."""
    parts = torch.split(text, at_once, dim=-2)
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
    scores: Tensor,
    selected: Tensor,
    rule: Selection,
    compared: Compared | None,
    row: int,
) -> Tagging:
    """One image's record; `scores` and `selected` `[N]` of its distinct words, `row` its place in `compared`."""
    values, kept = scores.tolist(), selected.tolist()
    ranks = [None] * len(values) if compared is None else compared.percentile[row].tolist()
    tagged = tuple(
        TaggedWord(
            text=word.text,
            index=word.index,
            start=None if word.start < 0 else word.start,
            end=None if word.end < 0 else word.end,
            score=values[place],
            selected=kept[place],
            percentile=ranks[place],
        )
        for word, place in zip(words, places, strict=True)
    )
    if compared is not None:
        found = Tagging(caption, tagged, rule.score, rule.rule, compared.cut[row])
        return replace(found, percentile=rule.percentile, negatives=compared.count[row])
    return Tagging(caption, tagged, rule.score, rule.rule, rule.threshold if rule.found.threshold else None)
