"""A batch of captions scored against a batch of images: words in, `Tagging` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.inference.views import View, average, average_feature
from ttd.negatives import SHARE, NegativeWords
from ttd.results import TaggedWord, Tagging
from ttd.scoring import (
    s_image,
    s_image_text,
    s_pixel,
    s_seg,
    s_text,
    scale_scores,
    select_largest_gap,
    select_threshold,
    share_beaten,
)
from ttd.text.embeddings import shortened
from ttd.text.words import Word, distinct, split_words

# Cosine maps of this many words are held at a time (s_pixel), however long the caption is; a caption's words
# and the most that it may borrow fit.
WORDS_AT_ONCE = 640


@dataclass(frozen=True)
class Rule:
    """How words are scored and selected.

    Attributes:
        score: one of `ttd.scoring.SCORES`.
        selection: one of `ttd.scoring.SELECTIONS`.
        threshold: for all selections but "gap" and "negatives".
        share: for "negatives", of the negative words that a word must beat.
    """

    score: str
    selection: str
    threshold: float
    share: float = SHARE

    @property
    def needs_caption(self) -> bool:
        """Whether the whole caption's embedding enters the score."""
        return self.score in ("s_text", "s_image+s_text")

    def select(self, scores: Tensor, valid: Tensor | None = None) -> Tensor:
        """The selection among scores `[...,N]` that `score_words` made; for "negatives" of shares beaten."""
        if self.selection == "gap":
            return select_largest_gap(scores, valid)
        if self.selection == "negatives":
            selected = scores >= self.share
            return selected if valid is None else selected & valid
        return select_threshold(scores, self.threshold, valid)


@dataclass(frozen=True)
class Compared:
    """Captions' words against negatives ones.

    Attributes:
        beaten: `[B,N]`, the share of the negative words that each word beats.
        count: `[B]`, how many words each image negatives.
        cut: the score that a word must exceed to be selected, by image; None where none is needed.
    """

    beaten: Tensor
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
    rule: Rule,
    *,
    caption: Tensor | None = None,
    valid: Tensor | None = None,
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
    negatives: NegativeWords | None = None,
) -> list[Tagging]:
    """Tag B images; every distinct word of the batch is encoded once, by `encode_text`.

    `negatives` is needed where the rule's selection is "negatives".
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
        selected = rule.select(compared.beaten, valid)
    return [
        _tagging(captions[i], words[i], per_caption[i][1], scores[i], selected[i], rule, compared, i)
        for i in range(len(captions))
    ]


def compare(
    encoder: Encoder,
    views: Iterable[View],
    text: Tensor,
    negatives: Tensor,
    rule: Rule,
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
    beaten = share_beaten(scores, others, valid, there)
    counts = there.sum(-1).tolist()
    cuts = [_cut(row[may], rule.share) for row, may in zip(others, there, strict=True)]
    return scores, Compared(beaten, counts, cuts)


def _cut(null: Tensor, share: float) -> float | None:
    """The highest of the scores `[K]` that a word must exceed to beat that share of them."""
    shares = torch.arange(len(null) + 1, device=null.device).float() / len(null)
    needed = int((shares >= share).int().argmax())
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
    scores: Tensor,
    selected: Tensor,
    rule: Rule,
    compared: Compared | None,
    row: int,
) -> Tagging:
    """One image's record; `scores` and `selected` `[N]` of its distinct words, `row` its place in `compared`."""
    values, kept = scores.tolist(), selected.tolist()
    beaten = [None] * len(values) if compared is None else compared.beaten[row].tolist()
    tagged = tuple(
        TaggedWord(
            text=word.text,
            index=word.index,
            start=None if word.start < 0 else word.start,
            end=None if word.end < 0 else word.end,
            score=values[place],
            selected=kept[place],
            beaten=beaten[place],
        )
        for word, place in zip(words, places, strict=True)
    )
    if compared is not None:
        found = Tagging(caption, tagged, rule.score, rule.selection, compared.cut[row])
        return replace(found, share=rule.share, negatives=compared.count[row])
    return Tagging(caption, tagged, rule.score, rule.selection, None if rule.selection == "gap" else rule.threshold)
