"""The losses against plain loops written from the equations, cell by cell and word by word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
        "captions": draw.uniform(-1, 1, (batch, captions, 4, 5)),
        "sim": draw.uniform(-1, 1, (batch, words, 4, 5)),
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
        assert (distill[i].item(), tag[i].item()) == pytest.approx(expected, abs=1e-5)


def test_floored_targets_are_the_equations() -> None:
    case = random_case(7)
    zero = torch.tensor([0.3, -2.0, 5.0])  # inside the range, below every map, above every map
    distill, tag = ours(case, False, zero)
    for i in range(3):
        one = {name: values[i] for name, values in case.items()}
        expected = plain_losses(**one, mean=False, zero=zero[i].item())
        assert (distill[i].item(), tag[i].item()) == pytest.approx(expected, abs=1e-5)


def test_without_masks_the_whole_map_counts() -> None:
    t = as_tensors(random_case(3))
    everywhere = torch.ones_like(t["inside"])
    for name, value in (("inside", None), ("inside", everywhere)):
        options = {name: value}
        wanted = targets(t["sim"], **options)
        assert torch.equal(wanted, targets(t["sim"]))
        assert torch.allclose(
            l_tag(t["sim"], wanted, t["selected"], t["weight"], **options),
            l_tag(t["sim"], wanted, t["selected"], t["weight"]),
        )


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
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_gradient_of_the_caption_is_towards_the_union() -> None:
    t = as_tensors(random_case(2))
    selected = torch.ones_like(t["selected"])
    caption = t["captions"].requires_grad_()
    wanted = targets(t["sim"], t["inside"])
    l_distill(caption, wanted, selected, t["inside"]).sum().backward()
    cells = t["inside"].sum((-2, -1))[:, None, None, None]
    expected = 2 * (caption.detach() - wanted.amax(1, keepdim=True)) / cells * t["inside"][:, None]
    assert caption.grad is not None
    assert torch.allclose(caption.grad, expected, atol=1e-6)


def test_padding_has_no_gradient_and_no_say() -> None:
    t = as_tensors(random_case(4))
    padded_word = t["weight"] == 0
    changed = t["sim"].masked_fill(~t["inside"][:, None], 9.0)
    changed = torch.where(padded_word[..., None, None], torch.inf, changed)
    before, after = (
        l_tag(sim, targets(sim, t["inside"]), t["selected"], t["weight"], t["inside"]) for sim in (t["sim"], changed)
    )
    assert torch.equal(before, after)


# ------------------------------------------------------------------ degenerate


def test_flat_maps_have_targets_of_zero() -> None:
    sim = torch.full((1, 2, 3, 3), 0.25)
    wanted = targets(sim)
    assert torch.equal(wanted, torch.zeros_like(sim))
    both = torch.tensor([[True, True]])
    assert l_tag(sim, wanted, both, torch.ones(1, 2)).item() == pytest.approx(2 * 0.0625)


def test_one_word_is_its_own_union() -> None:
    sim = torch.rand(1, 1, 3, 3)
    wanted = targets(sim)
    selected = torch.tensor([[True]])
    assert l_distill(wanted, wanted, selected).item() == 0.0
    expected = (sim[0, 0] - wanted[0, 0]).square().mean()
    assert l_tag(sim, wanted, selected, torch.ones(1, 1))[0] == pytest.approx(expected.item())


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
    assert torch.equal(wanted, targets(low.float(), t["inside"]))
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
        assert floor[i].item() == pytest.approx(np.quantile(rest, share), abs=1e-6)


def test_no_negative_words() -> None:
    assert negatives_floor(torch.zeros(2, 0), 0.5).tolist() == [-np.inf, -np.inf]
    assert negatives_floor(torch.zeros(1, 2), 0.5, torch.tensor([[False, False]])).item() == -np.inf


def test_a_share_lies_in_0_to_1() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        negatives_floor(torch.zeros(1, 2), 1.5)


# ------------------------------------------------------------------ relative maps and ranks, ours


@given(st.integers(0, 2**16), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_relative_maps_and_ranks_in_loops(seed: int, others: int) -> None:
    rng = np.random.default_rng(seed)
    sim, null = rng.normal(size=(2, 3, 2, 4)), rng.normal(size=(2, others, 2, 4))
    valid = rng.random((2, others)) < 0.6
    found = above_others(torch.tensor(sim), torch.tensor(null), torch.tensor(valid)).numpy()
    scores, negatives, selected = rng.normal(size=(2, 3)), rng.normal(size=(2, others)), rng.random((2, 3)) < 0.6
    ranked = l_rank(*(torch.tensor(value) for value in (scores, negatives, selected, valid))).numpy()
    for b in range(2):
        counted = [null[b, k] for k in range(others) if valid[b, k]]
        base = np.mean(counted, axis=0) if counted else 0.0
        assert np.allclose(found[b], sim[b] - base, atol=1e-6)
        pairs = [
            np.log1p(np.exp(RANK_SHARPNESS * (negatives[b, k] - scores[b, n]))) / RANK_SHARPNESS
            for n in range(3)
            for k in range(others)
            if selected[b, n] and valid[b, k]
        ]
        assert ranked[b] == pytest.approx(np.mean(pairs) if pairs else 0.0, rel=1e-5, abs=1e-7)


def test_what_all_texts_share_has_no_gradient_in_relative_maps() -> None:
    shared = torch.zeros(1, 1, 3, 3, requires_grad=True)
    own, others = torch.randn(1, 2, 3, 3), torch.randn(1, 4, 3, 3)
    above_others(own + shared, others + shared, torch.ones(1, 4, dtype=torch.bool)).square().sum().backward()
    assert shared.grad is not None
    assert shared.grad.abs().max() < 1e-5


def test_nothing_valid_may_hold_nan() -> None:
    others = torch.full((1, 2, 2, 2), torch.nan)
    others[0, 0] = 1.0
    valid = torch.tensor([[True, False]])
    assert above_others(torch.ones(1, 1, 2, 2), others, valid).eq(0).all()
    assert l_rank(torch.zeros(1, 1), others.amax((-2, -1)), torch.ones(1, 1, dtype=torch.bool), valid).isfinite().all()
