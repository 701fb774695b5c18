"""Which words of a caption are tags of the image: five scores and two selections (paper, section 3.1), and a
third selection that compares with words of other captions.

All functions take leading batch axes: N words, C channels, h x w cells of a cosine map. Captions of different
lengths share a batch through `valid`, bool `[...,N]`; what is not valid never wins, counts or is selected.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ttd.errors import InputError
from ttd.registry import SCORES as SCORES


def s_pixel(sim: Tensor, inside: Tensor | None = None) -> Tensor:
    """The paper's score: the best cell's cosine with each word (Eq. 2).

    Args:
        sim: raw cosines `[...,N,h,w]`.
        inside: bool, broadcastable to `sim`: cells that belong to the image.

    Returns:
        `[...,N]` in -1..1.
    """
    if inside is not None:
        sim = sim.masked_fill(~inside, -torch.inf)
    return sim.amax((-2, -1))


def mean_feature(dense: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of normalised dense features, the image's embedding for `s_image`.

    Args:
        dense: `[...,C,h,w]`, L2-normalised over C.
        weight: `[...,h,w]`, not negative: what each cell counts, e.g. 0 for padding; not normalised.

    Returns:
        `[...,C]`, not normalised.
    """
    if weight is None:
        return dense.mean((-2, -1))
    weight = weight.to(dense.dtype)[..., None, :, :]
    return (dense * weight).sum((-2, -1)) / weight.sum((-2, -1))


def s_image(mean: Tensor, text: Tensor) -> Tensor:
    """The cosine of the mean dense feature `[...,C]` with each word `[...,N,C]`: `[...,N]` (Eq. 1)."""
    return _cosines(mean, text)


def s_text(caption: Tensor, text: Tensor) -> Tensor:
    """The cosine of the caption `[...,C]` with each of its words `[...,N,C]`: `[...,N]` (Eq. 7)."""
    return _cosines(caption, text)


def s_image_text(image_score: Tensor, text_score: Tensor) -> Tensor:
    """s_image + s_text: the plain sum of both, each scaled first, `[...,N]`; same threshold."""
    return image_score + text_score


def s_seg(sim: Tensor, valid: Tensor | None = None, inside: Tensor | None = None) -> Tensor:
    """The share of the cells whose best word is this one.

    Args:
        sim: raw cosines `[...,N,h,w]`; of equal words the first gets the cell.
        valid: bool `[...,N]`.
        inside: bool `[...,h,w]`: cells that belong to the image.

    Returns:
        `[...,N]` in 0..1, the sum over the valid words is 1.
    """
    if valid is not None:
        sim = sim.masked_fill(~valid[..., None, None], -torch.inf)
    best = sim.argmax(-3).flatten(-2)  # [..., h*w]
    if inside is None:
        weight = torch.ones_like(best, dtype=torch.float32)
    else:
        weight = inside.expand(sim.shape[:-3] + sim.shape[-2:]).flatten(-2).float()
    counts = torch.zeros(sim.shape[:-2], device=sim.device).scatter_add_(-1, best, weight)
    shares = counts / weight.sum(-1, keepdim=True)
    return shares if valid is None else shares.masked_fill(~valid, 0.0)


def softmax_scores(scores: Tensor, logit_scale: float, valid: Tensor | None = None) -> Tensor:
    """Cosines `[...,N]` -> shares in 0..1: softmax over the caption's words at the logit scale (as CaSED)."""
    scores = checked(scores, valid)
    logits = scores * logit_scale
    if valid is not None:
        logits = logits.masked_fill(~valid, torch.finfo(logits.dtype).min)
    shares = logits.softmax(-1)
    return shares if valid is None else shares.masked_fill(~valid, 0.0)


def min_max_scores(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scores `[...,N]` -> 0..1 between the caption's lowest and highest; all equal become 1."""
    scores = checked(scores, valid)
    low, high = _range(scores, valid)
    flat = high == low
    scaled = torch.where(flat, torch.ones_like(scores), (scores - low) / (high - low + flat))
    return scaled if valid is None else scaled.masked_fill(~valid, 0.0)


def select_largest_gap(scores: Tensor, valid: Tensor | None = None) -> Tensor:
    """Sort the words by score and keep all above the largest drop between neighbours (section 3.1, Fig. 4a).

    One word is selected; all equal: all are; of equal largest drops the first counts.

    Args:
        scores: `[...,N]`.
        valid: bool `[...,N]`.

    Returns:
        bool `[...,N]`; a caption without a valid word has nothing selected.

    Raises:
        InputError: a score is NaN or infinite.
    """
    scores = checked(scores, valid)
    if scores.shape[-1] == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    ordered = scores.sort(-1, descending=True).values
    drops = ordered[..., :-1] - ordered[..., 1:]
    # From the last valid word to the padding the drop is infinite, among the padding NaN: neither counts.
    drops = torch.where(drops.isfinite(), drops, torch.zeros_like(drops))
    # A last "drop" of 0 keeps all words where no two scores differ.
    drops = torch.cat([drops, torch.zeros_like(ordered[..., :1])], -1)
    largest, place = drops.max(-1, keepdim=True)
    place = torch.where(largest > 0, (drops == largest).int().argmax(-1, keepdim=True), drops.shape[-1] - 1)
    selected = scores >= ordered.gather(-1, place)
    return selected if valid is None else selected & valid


def select_threshold(
    scores: Tensor, threshold: float = 0.5, valid: Tensor | None = None, *, each: bool = False
) -> Tensor:
    """Keep the words whose score reaches the threshold; possibly none.

    One word is selected; all equal: all are.

    Args:
        scores: `[...,N]`, usually in 0..1.
        threshold: reached by scores that are equal to it.
        valid: bool `[...,N]`.
        each: every word by itself, also a single one: for calibrated scores, which do not depend on the other words.

    Returns:
        bool `[...,N]`.

    Raises:
        InputError: a score is NaN or infinite.
    """
    scores = checked(scores, valid)
    if scores.shape[-1] == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    selected = scores >= threshold
    if not each:
        low, high = _range(scores, valid)
        selected = selected | (low == high)
    return selected if valid is None else selected & valid


def percentiles(
    scores: Tensor, negatives: Tensor, valid: Tensor | None = None, negatives_valid: Tensor | None = None
) -> Tensor:
    """How many in a hundred of an image's negative words have a score that a word exceeds (not in the paper).

    Args:
        scores: `[...,N]`, s_pixel of the captions' words.
        negatives: `[...,K]`, s_pixel of words from other captions on the same images.
        valid: bool `[...,N]`.
        negatives_valid: bool `[...,K]`.

    Returns:
        `[...,N]` in 0..100, float32; 0 where not valid.

    Raises:
        InputError: an image has no negative word, or a score is NaN or infinite.
    """
    counts = torch.ones_like(negatives, dtype=torch.bool) if negatives_valid is None else negatives_valid
    if negatives.shape[-1] == 0 or not bool(counts.any(-1).all()):
        raise InputError("an image has no negative words to compare with: give words that its caption does not have")
    scores, null = checked(scores, valid), checked(negatives, counts)
    beaten = (scores[..., None] > null[..., None, :]) & counts[..., None, :]  # (..., N, K)
    # Multiplied first: 9 of 10 is exactly 90, whatever float32 makes of 0.9.
    found = (100 * beaten.sum(-1)).float() / counts.sum(-1, keepdim=True).float()
    return found if valid is None else found.masked_fill(~valid, 0.0)


def select_above_negatives(
    scores: Tensor,
    negatives: Tensor,
    percentile: float,
    valid: Tensor | None = None,
    negatives_valid: Tensor | None = None,
) -> Tensor:
    """A selection by permutation test (not in the paper): a word counts when it beats enough negative words.

    Args:
        scores: as for `percentiles`, like all but the percentile.
        negatives: the negative words' scores.
        valid: which scores are of words.
        negatives_valid: which negatives are of words.
        percentile: in 0..100: of an image's negative words' scores, which a word must exceed.

    Returns:
        bool `[...,N]`; possibly none of a caption, and with one word or equal scores no exception is made.

    Raises:
        InputError: as `percentiles`; or the percentile is none.
    """
    check_percentile(percentile)
    selected = percentiles(scores, negatives, valid, negatives_valid) >= percentile
    return selected if valid is None else selected & valid


def check_percentile(percentile: float) -> None:
    """Raise `InputError` where `percentile` is not within 0..100."""
    if not 0 <= percentile <= 100:
        raise InputError(f"a percentile of the negative words' scores is in 0..100, not {percentile}")


def _cosines(one: Tensor, many: Tensor) -> Tensor:
    """`[...,C]` with `[...,N,C]` -> `[...,N]`, in float32."""
    return (normalize(many.float(), dim=-1) @ normalize(one.float(), dim=-1)[..., None])[..., 0]


def checked(scores: Tensor, valid: Tensor | None) -> Tensor:
    """Scores `[...,N]` in float32 at least, every valid one finite; the others become 0.

    Raises:
        InputError: a score is NaN or infinite.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if valid is not None:
        scores = scores.masked_fill(~valid, 0.0)
    if not bool(scores.isfinite().all()):
        raise InputError("a score is NaN or infinite: the model's weights or the image's pixels are damaged")
    return scores


def _range(scores: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Lowest and highest valid score, each `[...,1]`."""
    if valid is None:
        return scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    low = scores.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
    return low, scores.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True)
