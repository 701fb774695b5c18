"""The paper's losses, section 3.2: the targets of a caption's map and its words' maps; and the terms by name.

`L = L_distill + L_tag` (Eq. 6). `sim` stands for whatever maps the caller trains, raw cosines unless it says
otherwise. Everything is computed in float32; every squared norm is a mean over the patches of the image, so
neither the resolution nor the padding changes its weight.

A term is one `LossTerm` and one `register_loss_term(...)`, here or in another package, which names its module in its
entry points; `loss.NAME` of the config is its weight:

    [project.entry-points."ttd.losses"]
    mine = "my_loss"

Shapes: B images, M captions of an image, N words, K negative words, h x w patches. Captions of different
lengths share a batch through bool masks; `inside` `[B,h,w]` says which patches belong to the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ttd.errors import InputError
from ttd.maps import union
from ttd.registry import LOSS_TERMS, origin_of

EPS = 1e-6
RANK_SHARPNESS = 20.0
"""`k` of `l_rank`: cosines 0.05 apart count as one step."""


def targets(sim: Tensor, inside: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
    """`sg(norm(sim(t)))` of every map: what a selected word's map is pulled towards (Eq. 4 and 5).

    Args:
        sim: `[B,N,h,w]`.
        inside: bool `[B,h,w]`; other patches count neither for the minimum nor for the maximum.
        zero: `[B]`, not in the paper: the value that becomes 0 instead of each map's minimum, see
            `negatives_floor`. Below it a target is 0, and a map that stays below it has a target of zeros.

    Returns:
        `[B,N,h,w]` in 0..1 inside the image, 0 outside, without gradient.
    """
    sim = sim.detach().float()
    low = sim if inside is None else sim.masked_fill(~inside[:, None], torch.inf)
    high = sim if inside is None else sim.masked_fill(~inside[:, None], -torch.inf)
    lowest = low.amin((-2, -1), keepdim=True)
    if zero is not None:
        lowest = torch.maximum(lowest, zero.float()[:, None, None, None])
    width = (high.amax((-2, -1), keepdim=True) - lowest).clamp(min=0)
    scaled = (sim - lowest).clamp(min=0) / (width + EPS)
    return scaled if inside is None else scaled.masked_fill(~inside[:, None], 0.0)


def l_distill(
    caption_sim: Tensor,
    word_targets: Tensor,
    selected: Tensor,
    inside: Tensor | None = None,
    member: Tensor | None = None,
) -> Tensor:
    """`L_distill = || sim(T) - sg(max over selected t of norm(sim(t))) ||^2` (Eq. 4).

    Args:
        caption_sim: `[B,M,h,w]`.
        word_targets: `[B,N,h,w]` from `targets`.
        selected: bool `[B,N]`.
        inside: bool `[B,h,w]`.
        member: bool `[B,M,N]`, which words are in which caption; None: every word in each.

    Returns:
        `[B]`: the mean over the captions that have a selected word; 0 where none has.
    """
    chosen = selected[:, None].expand(-1, caption_sim.shape[1], -1)
    if member is not None:
        chosen = chosen & member  # (B, M, N)
    wanted = union(word_targets.detach()[:, None], chosen)  # (B, M, h, w)
    counted = chosen.any(-1).float()  # (B, M)
    distances = _squared_norm(caption_sim.float() - wanted, inside)
    return (distances * counted).sum(-1) / counted.sum(-1).clamp(min=1)


def l_tag(
    sim: Tensor,
    word_targets: Tensor,
    selected: Tensor,
    weight: Tensor,
    inside: Tensor | None = None,
    *,
    mean: bool = False,
) -> Tensor:
    """`L_tag`: sum over the words of `|| sim(t) - sg(norm(sim(t))) ||^2` if selected, else `|| sim(t) ||^2`
    (Eq. 5).

    Args:
        sim: `[B,N,h,w]`.
        word_targets: `[B,N,h,w]` from `targets`.
        selected: bool `[B,N]`.
        weight: `[B,N]`: 1 for a caption's words, 0 for padding; negative words count as unselected words with
            a weight of their own (not in the paper).
        inside: bool `[B,h,w]`.
        mean: divide by the sum of the weights (not in the paper).

    Returns:
        `[B]`; 0 for an image without words.
    """
    wanted = torch.where(selected[..., None, None], word_targets.detach(), 0.0)
    distances = _squared_norm(sim.float() - wanted, inside)  # (B, N)
    # Not `distances * weight`: padding may hold anything, and 0 * inf is NaN.
    total = torch.where(weight > 0, distances * weight, 0.0).sum(-1)
    return total / weight.sum(-1).clamp(min=EPS) if mean else total


def negatives_floor(negatives: Tensor, quantile: float, valid: Tensor | None = None) -> Tensor:
    """The zero of a floored target (not in the paper): a quantile of the negative words' scores.

    A target is then above 0 only where a word beats words of other images.

    Args:
        negatives: `[B,K]`, the negative words' highest patches.
        quantile: in 0..1.
        valid: bool `[B,K]`.

    Returns:
        `[B]`, without gradient; -inf (no floor) for an image without negative words.
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"a quantile is in 0..1, not {quantile}")
    if negatives.shape[-1] == 0:
        return torch.full(negatives.shape[:-1], -torch.inf, device=negatives.device)
    scores = negatives.detach().float()
    if valid is not None:
        scores = scores.masked_fill(~valid, torch.nan)
    return scores.nanquantile(quantile, -1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def above_others(sim: Tensor, others: Tensor, valid: Tensor) -> Tensor:
    """`sim(t) - mean over b of sim(b)`: how far texts exceed other texts in every patch (not in the paper).

    A patch that is similar to whatever is said, as the ground of an image is to captions, is 0 here. Trained in
    place of `sim`, such patches gain nothing by becoming similar to all texts.

    Args:
        sim: `[B,N,h,w]`.
        others: `[B,K,h,w]` of captions and words of other images.
        valid: bool `[B,K]`.

    Returns:
        `[B,N,h,w]`; `sim` itself for an image without others.
    """
    counted = valid[..., None, None].float()  # (B, K, 1, 1)
    total = torch.where(valid[..., None, None], others.float(), 0.0).sum(1, keepdim=True)
    return sim.float() - total / counted.sum(1, keepdim=True).clamp(min=1)


def l_rank(scores: Tensor, negatives: Tensor, selected: Tensor, negatives_valid: Tensor) -> Tensor:
    """`L_rank = mean over selected t and negatives b of softplus(k (s_pixel(b) - s_pixel(t))) / k` (not in the paper).

    A selected word should score higher than words of other images' captions.

    Args:
        scores: `[B,N]`, s_pixel of a caption's words.
        negatives: `[B,K]`, s_pixel of words of other captions on the same images.
        selected: bool `[B,N]`.
        negatives_valid: bool `[B,K]`.

    Returns:
        `[B]`; 0 for an image without selected or without negative words.
    """
    pairs = selected[:, :, None] & negatives_valid[:, None, :]  # (B, N, K)
    gaps = negatives.float()[:, None, :] - scores.float()[:, :, None]
    each = torch.where(pairs, softplus(RANK_SHARPNESS * gaps) / RANK_SHARPNESS, 0.0)
    return each.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def _squared_norm(difference: Tensor, inside: Tensor | None) -> Tensor:
    """`|| . ||^2` as a mean over the patches of the image: `[B,N,h,w]` -> `[B,N]`."""
    squares = difference.square()
    if inside is None:
        return squares.mean((-2, -1))
    counted = inside[:, None]  # (B, 1, h, w)
    return torch.where(counted, squares, 0.0).sum((-2, -1)) / counted.sum((-2, -1)).clamp(min=1)


# ---------------------------------------------------------------- terms by name


@dataclass(frozen=True)
class LossInputs:
    """Everything that a term may use, of one batch; N words of the captions, then N' negative words as unselected ones.

    Attributes:
        inside: bool `[B,h,w]`.
        caption_sim: `[B,M,h,w]`, with gradient.
        sim: `[B,N+N',h,w]`, with gradient.
        targets: as `sim`, from `targets`.
        selected: bool `[B,N+N']`.
        weight: `[B,N+N']`, of the words in L_tag.
        member: bool `[B,M,N+N']`, which words are in which caption.
        mean: whether L_tag is a mean over the words (`loss.mean`).
        scores: `[B,N]`, s_pixel of the captions' words under the model that selects.
        word_scores: `[B,N]`, the same under the model that is trained, with gradient.
        negative_sim: `[B,K,h,w]` of words of other captions; K is 0 where nothing needs them. With gradient where a
            term needs them.
        negative_scores: `[B,K]`, their s_pixel.
        negatives_valid: bool `[B,K]`; `[B,0]` where nothing needs them.
        other_caption_sim: `[B,T,h,w]` of all captions of the batch, with gradient; None where nothing needs them.
        other_captions: bool `[B,T]`, which of these are of other images.
    """

    inside: Tensor
    caption_sim: Tensor
    sim: Tensor
    targets: Tensor
    selected: Tensor
    weight: Tensor
    member: Tensor
    mean: bool
    scores: Tensor
    word_scores: Tensor
    negative_sim: Tensor
    negative_scores: Tensor
    negatives_valid: Tensor
    other_caption_sim: Tensor | None
    other_captions: Tensor


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss.

    Attributes:
        name: of its weight in the config, `loss.NAME`, and of its column in the log.
        function: `[B]` from the inputs, in float32, without state of its own.
        negatives: whether it needs words of other captions, as many as `loss.compared`.
        other_captions: whether it needs the maps of the batch's other captions.
    """

    name: str
    function: Callable[[LossInputs], Tensor]
    negatives: bool = False
    other_captions: bool = False


def register_loss_term(term: LossTerm) -> LossTerm:
    """Make a term known by its name; gives it back.

    Raises:
        InputError: the name is taken, also by another setting of the section `loss`, or is not a name.
    """
    LOSS_TERMS.add(term.name, term, origin_of(term.function))
    return term


def find_loss_terms(names: Iterable[str]) -> list[LossTerm]:
    """The terms of these names.

    Raises:
        InputError: one is unknown.
    """
    return [LOSS_TERMS.find(name) for name in names]


def _distill(inputs: LossInputs) -> Tensor:
    return l_distill(inputs.caption_sim, inputs.targets, inputs.selected, inputs.inside, inputs.member)


def _tag(inputs: LossInputs) -> Tensor:
    return l_tag(inputs.sim, inputs.targets, inputs.selected, inputs.weight, inputs.inside, mean=inputs.mean)


def _rank(inputs: LossInputs) -> Tensor:
    own = inputs.selected[:, : inputs.word_scores.shape[1]]
    return l_rank(inputs.word_scores, inputs.negative_scores, own, inputs.negatives_valid)


for _term in (LossTerm("distill", _distill), LossTerm("tag", _tag), LossTerm("rank", _rank, negatives=True)):
    register_loss_term(_term)
