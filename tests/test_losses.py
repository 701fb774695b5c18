"""The losses against plain loops written from the equations, cell by cell and word by word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.tolerance import assert_close, float_tolerance
from ttd.errors import InputError
from ttd.losses import (
    RANK_SHARPNESS,
    above_others,
    l_distill,
    l_rank,
    l_tag,
    negatives_floor,
    targets,
)

# ------------------------------------------------------------------ the equations in loops


# Twenty cells, up to six words and three captions, and the five operations that make a square of a cosine.
TERMS = 20 + 6 + 3 + 5


def plain_norm(cosines: np.ndarray, inside: np.ndarray, zero: float = -np.inf) -> np.ndarray:
    cells = [cosines[y, x] for y, x in np.ndindex(cosines.shape) if inside[y, x]]
    low, high = max(min(cells), zero), max(cells)
    out = np.zeros_like(cosines)
    for y, x in np.ndindex(cosines.shape):
        if inside[y, x] and cosines[y, x] > low:
            out[y, x] = (cosines[y, x] - low) / (high - low + 1e-6)
    return out


def plain_square(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    return float(np.mean([(a[c] - b[c]) ** 2 for c in np.ndindex(a.shape) if inside[c]]))


def plain_losses(
    captions: np.ndarray, sim: np.ndarray, selected: np.ndarray, weight: np.ndarray, member: np.ndarray,
    inside: np.ndarray, mean: bool, zero: float = -np.inf,
) -> tuple[float, float]:  # fmt: skip
    """One image: captions [M,h,w], sim [N,h,w]."""
    scaled = [plain_norm(one, inside, zero) for one in sim]
    distances = []
    for m, caption in enumerate(captions):
        chosen = [scaled[t] for t in range(len(sim)) if selected[t] and member[m, t]]
        if chosen:
            distances.append(plain_square(caption, np.max(chosen, axis=0), inside))
    distill = float(np.mean(distances)) if distances else 0.0
    tag = sum(
        w * plain_square(sim[t], scaled[t] if selected[t] else np.zeros_like(sim[t]), inside)
        for t, w in enumerate(weight)
        if w > 0
    )
    return distill, tag / sum(weight) if mean and sum(weight) else tag


def random_case(seed: int, *, words: int = 5, captions: int = 1, batch: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    inside = draw.random((batch, 4, 5)) < 0.7
    inside[:, 1, 2] = True
    weight = (draw.random((batch, words)) < 0.7).astype(float)
    weight[:, -1] *= 0.5
    member = draw.random((batch, captions, words)) < 0.6
    return {
        "captions": draw.uniform(-1, 1, (batch, captions, 4, 5)).astype(np.float32).astype(float),
        "sim": draw.uniform(-1, 1, (batch, words, 4, 5)).astype(np.float32).astype(float),
        "selected": (draw.random((batch, words)) < 0.5) & (weight > 0),
        "weight": weight,
        "member": member,
        "inside": inside,
    }


def as_tensors(case: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(v, dtype=None if v.dtype == bool else torch.float32) for name, v in case.items()}


def ours(
    case: dict[str, np.ndarray], mean: bool, zero: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    t = as_tensors(case)
    wanted = targets(t["sim"], t["inside"], zero)
    distill = l_distill(t["captions"], wanted, t["selected"], t["inside"], t["member"])
    return distill, l_tag(t["sim"], wanted, t["selected"], t["weight"], t["inside"], mean=mean)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 3), st.booleans())
def test_losses_are_the_equations(seed: int, words: int, captions: int, mean: bool) -> None:
    case = random_case(seed, words=words, captions=captions)
    distill, tag = ours(case, mean)
    for i in range(3):
        expected = plain_losses(**{name: values[i] for name, values in case.items()}, mean=mean)
        assert_close([distill[i].item(), tag[i].item()], expected, TERMS)


def test_floored_targets_are_the_equations() -> None:
    case = random_case(7)
    zero = torch.tensor([0.3, -2.0, 5.0])  # inside the range, below every map, above every map
    distill, tag = ours(case, False, zero)
    for i in range(3):
        one = {name: values[i] for name, values in case.items()}
        expected = plain_losses(**one, mean=False, zero=zero[i].item())
        assert_close([distill[i].item(), tag[i].item()], expected, TERMS)


def test_without_masks_the_whole_map_counts() -> None:
    t = as_tensors(random_case(3))
    everywhere = torch.ones_like(t["inside"])
    for name, value in (("inside", None), ("inside", everywhere)):
        options = {name: value}
        wanted = targets(t["sim"], **options)
        assert_close(wanted, targets(t["sim"]), 3)
        with_masks = l_tag(t["sim"], wanted, t["selected"], t["weight"], **options)
        assert_close(with_masks, l_tag(t["sim"], wanted, t["selected"], t["weight"]), TERMS)


# ------------------------------------------------------------------ gradients


def test_gradients_stop_at_the_targets() -> None:
    """d/d sim of || sim - sg(norm(sim)) ||^2 is 2 (sim - norm) / cells, and nothing flows into norm."""
    t = as_tensors(random_case(1))
    sim, caption = t["sim"].requires_grad_(), t["captions"].requires_grad_()
    wanted = targets(sim, t["inside"])
    assert not wanted.requires_grad
    distill = l_distill(caption, wanted, t["selected"], t["inside"])
    assert torch.autograd.grad(distill.sum(), sim, allow_unused=True, retain_graph=True)[0] is None
    tag = l_tag(sim, wanted, t["selected"], t["weight"], t["inside"])
    gradient = torch.autograd.grad(tag.sum(), sim)[0]
    cells = t["inside"].sum((-2, -1))[:, None, None, None]
    goal = torch.where(t["selected"][..., None, None], wanted, 0.0)
    expected = 2 * (sim - goal) / cells * t["weight"][..., None, None] * t["inside"][:, None]
    assert_close(gradient, expected, 5)


def test_gradient_of_the_caption_is_towards_the_union() -> None:
    t = as_tensors(random_case(2))
    selected = torch.ones_like(t["selected"])
    caption = t["captions"].requires_grad_()
    wanted = targets(t["sim"], t["inside"])
    l_distill(caption, wanted, selected, t["inside"]).sum().backward()
    cells = t["inside"].sum((-2, -1))[:, None, None, None]
    expected = 2 * (caption.detach() - wanted.amax(1, keepdim=True)) / cells * t["inside"][:, None]
    assert caption.grad is not None
    assert_close(caption.grad, expected, 5)


def test_padding_has_no_gradient_and_no_say() -> None:
    t = as_tensors(random_case(4))
    padded_word = t["weight"] == 0
    changed = t["sim"].masked_fill(~t["inside"][:, None], 9.0)
    changed = torch.where(padded_word[..., None, None], torch.inf, changed)
    before, after = (
        l_tag(sim, targets(sim, t["inside"]), t["selected"], t["weight"], t["inside"]) for sim in (t["sim"], changed)
    )
    assert_close(after, before, TERMS)


# ------------------------------------------------------------------ degenerate


def test_flat_maps_have_targets_of_zero() -> None:
    sim = torch.full((1, 2, 3, 3), 0.25)
    wanted = targets(sim)
    assert torch.equal(wanted, torch.zeros_like(sim))
    both = torch.tensor([[True, True]])
    assert_close(l_tag(sim, wanted, both, torch.ones(1, 2)), [2 * 0.0625], 9 + 2)


def test_one_word_is_its_own_union() -> None:
    sim = torch.rand(1, 1, 3, 3)
    wanted = targets(sim)
    selected = torch.tensor([[True]])
    assert l_distill(wanted, wanted, selected).item() == 0.0
    expected = (sim[0, 0] - wanted[0, 0]).square().mean()
    assert_close(l_tag(sim, wanted, selected, torch.ones(1, 1))[0], expected, 9 + 2)


@pytest.mark.parametrize("words", [0, 3])
def test_a_image_without_words_costs_nothing(words: int) -> None:
    sim = torch.rand(2, words, 3, 3)
    nothing = torch.zeros(2, words)
    wanted = targets(sim)
    if words:
        assert torch.equal(l_distill(torch.rand(2, 1, 3, 3), wanted, nothing.bool()), torch.zeros(2))
    for mean in (False, True):
        assert torch.equal(l_tag(sim, wanted, nothing.bool(), nothing, mean=mean), torch.zeros(2))


def test_nan_is_not_hidden() -> None:
    sim = torch.rand(2, 2, 3, 3)
    sim[1, 0, 0, 0] = torch.nan
    every = torch.ones(2, 2)
    distill = l_distill(torch.rand(2, 1, 3, 3), targets(sim), every.bool())
    tag = l_tag(sim, targets(sim), every.bool(), every)
    assert distill.isfinite().tolist() == tag.isfinite().tolist() == [True, False]


def test_half_precision_is_computed_in_float32() -> None:
    t = as_tensors(random_case(5))
    low = t["sim"].bfloat16()
    wanted = targets(low, t["inside"])
    assert wanted.dtype == torch.float32
    assert_close(wanted, targets(low.float(), t["inside"]), 3)
    assert l_tag(low, wanted, t["selected"], t["weight"]).dtype == torch.float32


# ------------------------------------------------------------------ negative words


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 7))
def test_the_floor_is_a_quantile(seed: int, share: float, number: int) -> None:
    draw = np.random.default_rng(seed)
    null = draw.uniform(-1, 1, (2, number)).astype(np.float32)
    there = draw.random((2, number)) < 0.7
    there[:, 0] = True
    floor = negatives_floor(torch.tensor(null), share, torch.tensor(there))
    for i in range(2):
        rest = [null[i, k] for k in range(number) if there[i, k]]
        assert_close(floor[i], np.quantile(rest, share), 3, scale=1)


def test_no_negative_words() -> None:
    assert negatives_floor(torch.zeros(2, 0), 0.5).tolist() == [-np.inf, -np.inf]
    assert negatives_floor(torch.zeros(1, 2), 0.5, torch.tensor([[False, False]])).item() == -np.inf


def test_a_share_lies_in_0_to_1() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        negatives_floor(torch.zeros(1, 2), 1.5)


# ------------------------------------------------------------------ relative maps and ranks, ours


@example(218, 1)
@given(st.integers(0, 2**16), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_relative_maps_and_ranks_in_loops(seed: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    sim, null = rng.normal(size=(2, 3, 2, 4)), rng.normal(size=(2, others, 2, 4))
    valid = rng.random((2, others)) < 0.6
    found = above_others(torch.tensor(sim), torch.tensor(null), torch.tensor(valid)).numpy()
    # Numbers that float32 holds: rounding them would count as a gap's error, of the scores' size.
    scores, negatives = (rng.normal(size=(2, n)).astype(np.float32).astype(float) for n in (3, others))
    selected = rng.random((2, 3)) < 0.6
    ranked = l_rank(*(torch.tensor(value) for value in (scores, negatives, selected, valid))).numpy()
    for b in range(2):
        counted = [null[b, k] for k in range(others) if valid[b, k]]
        base = np.mean(counted, axis=0) if counted else 0.0
        assert_close(found[b], sim[b] - base, others + 1)
        counted = [(n, k) for n in range(3) for k in range(others) if selected[b, n] and valid[b, k]]
        gaps = np.array([negatives[b, k] - scores[b, n] for n, k in counted])
        powers = np.exp(RANK_SHARPNESS * gaps)
        expected = np.log1p(powers).mean() / RANK_SHARPNESS if len(gaps) else 0.0
        # The slope of log(1 + exp(x)), by which an error of a gap goes on; gaps are as large as these.
        size = (np.abs(gaps) * powers / (1 + powers)).mean() if len(gaps) else 0.0
        assert_close(ranked[b], expected, 3 * others + 3, scale=expected + size)


def test_what_all_texts_share_has_no_gradient_in_relative_maps() -> None:
    shared = torch.zeros(1, 1, 3, 3, requires_grad=True)
    own, others = torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3)
    above_others(own + shared, others + shared, torch.ones(1, 4, dtype=torch.bool)).square().sum().backward()
    assert shared.grad is not None
    # Every word's gradients cancel out: 2 (own - mean of the others), once as it is and once spread over the others.
    size = 4 * float(own.abs().max() + others.abs().max())
    assert shared.grad.abs().max() < float_tolerance(torch.float32, 2 * 4 + 2 * 4, scale=size)


def test_nothing_valid_may_hold_nan() -> None:
    others = torch.full((1, 2, 2, 2), torch.nan)
    others[0, 0] = 1.0
    valid = torch.tensor([[True, False]])
    assert above_others(torch.ones(1, 1, 2, 2), others, valid).eq(0).all()
    assert l_rank(torch.zeros(1, 1), others.amax((-2, -1)), torch.ones(1, 1, dtype=torch.bool), valid).isfinite().all()
