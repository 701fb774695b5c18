"""The paper's losses, section 3.2: what a caption's map and its words' maps are pulled towards.

`L = L_distill + L_tag` (Eq. 6). `sim` stands for whatever maps the caller trains, raw cosines unless it says
otherwise. Everything is computed in float32; every squared norm is a mean over the cells of the image, so
neither the resolution nor the padding changes its weight.

Shapes: B images, M captions of an image, N words, K negative words, h x w cells. Captions of different
lengths share a batch through bool masks; `inside` `[B,h,w]` says which cells belong to the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ttd.errors import InputError
from ttd.maps import union

EPS = 1e-6
RANK_SHARPNESS = 20.0
"""`k` of `l_rank`: cosines 0.05 apart count as one step."""


def targets(sim: Tensor, inside: Tensor | None = None, zero: Tensor | None = None) -> Tensor:
    """`sg(norm(sim(t)))` of every map: what a selected word's map is pulled towards (Eq. 4 and 5).

    Args:
        sim: `[B,N,h,w]`.
        inside: bool `[B,h,w]`; other cells count neither for the minimum nor for the maximum.
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
        member: bool `[B,M,N]`, which words stand in which caption; None: every word in each.

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

    A target is then above 0 only where a word beats words that were never said of this image.

    Args:
        negatives: `[B,K]`, the negative words' highest cells.
        quantile: in 0..1.
        valid: bool `[B,K]`.

    Returns:
        `[B]`, without gradient; -inf (no floor) for an image without negative words.
    """
    if not 0 <= quantile <= 1:
        raise InputError(f"a quantile lies in 0..1, not {quantile}")
    if negatives.shape[-1] == 0:
        return torch.full(negatives.shape[:-1], -torch.inf, device=negatives.device)
    scores = negatives.detach().float()
    if valid is not None:
        scores = scores.masked_fill(~valid, torch.nan)
    return scores.nanquantile(quantile, -1).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def above_others(sim: Tensor, others: Tensor, valid: Tensor) -> Tensor:
    """`sim(t) - mean over b of sim(b)`: how far texts exceed other texts in every cell (not in the paper).

    A cell that is similar to whatever is said, as the ground of an image is to captions, is 0 here. Trained in
    place of `sim`, such cells gain nothing by becoming similar to all texts.

    Args:
        sim: `[B,N,h,w]`.
        others: `[B,K,h,w]` of texts that were said of other images.
        valid: bool `[B,K]`.

    Returns:
        `[B,N,h,w]`; `sim` itself for an image without others.
    """
    counted = valid[..., None, None].float()  # (B, K, 1, 1)
    total = torch.where(valid[..., None, None], others.float(), 0.0).sum(1, keepdim=True)
    return sim.float() - total / counted.sum(1, keepdim=True).clamp(min=1)


def l_rank(scores: Tensor, negatives: Tensor, selected: Tensor, negatives_valid: Tensor) -> Tensor:
    """`L_rank = mean over selected t and negatives b of softplus(k (s_pixel(b) - s_pixel(t))) / k` (not in the paper).

    A word that was selected shall score higher than words that were said of other images.

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
    """`|| . ||^2` as a mean over the cells of the image: `[B,N,h,w]` -> `[B,N]`."""
    squares = difference.square()
    if inside is None:
        return squares.mean((-2, -1))
    counted = inside[:, None]  # (B, 1, h, w)
    return torch.where(counted, squares, 0.0).sum((-2, -1)) / counted.sum((-2, -1)).clamp(min=1)
