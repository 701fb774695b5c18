"""PAMR against the reference sample, against loops written from the formula, and its properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.tolerance import PAMR, assert_close, float_tolerance
from ttd.errors import InputError
from ttd.refine import pamr
from ttd.refine.pamr import Blocks

DILATIONS = (1, 2, 4, 8, 12, 24)  # TCL's


def by_loops(image: np.ndarray, mask: np.ndarray, iterations: int, dilations: tuple[int, ...]) -> np.ndarray:
    """The formula, pixel by pixel in float64; image [3,H,W] and mask [C,H,W] on one grid."""
    _, height, width = image.shape

    def at(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    places, weights = {}, {}
    for y in range(height):
        for x in range(width):
            window = [at(y + dy * d, x + dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            around = [p for k, p in enumerate(window) if k % 9 != 4]
            std = np.std([image[:, r, c] for r, c in window], axis=0, ddof=1)
            logit = np.array(
                [np.mean(-np.abs(image[:, y, x] - image[:, r, c]) / (1e-8 + 0.1 * std)) for r, c in around]
            )
            weight = np.exp(logit - logit.max())
            places[y, x], weights[y, x] = around, weight / weight.sum()
    for _ in range(iterations):
        mask = np.stack(
            [
                np.stack(
                    [
                        sum(w * mask[:, r, c] for w, (r, c) in zip(weights[y, x], places[y, x], strict=True))
                        for x in range(width)
                    ],
                    axis=-1,
                )
                for y in range(height)
            ],
            axis=-2,
        )
    return mask


def terms(iterations: int, dilations: tuple[int, ...] = DILATIONS) -> int:
    """`PAMR` for fewer rounds and neighbours."""
    return 8 * len(dilations) * iterations + 10**2 * 9 * len(dilations)


def test_reproduces_the_reference_sample(shared: Path) -> None:
    sample = load_file(shared / "reference/tcl_small/outputs.safetensors")
    out = pamr(sample["pamr_image"], sample["pamr_mask"])
    assert out.shape == sample["pamr_out"].shape
    assert_close(out, sample["pamr_out"], PAMR)
    for channel in range(5):
        one = pamr(sample["pamr_image"], sample["pamr_mask"][:, [channel]])
        assert_close(one, sample["pamr_out"][:, [channel]], PAMR)


@pytest.mark.parametrize(
    ("size", "dilations"),
    [((1, 1), (1, 2)), ((2, 3), (1, 2, 4, 8, 12, 24)), ((1, 6), (3,)), ((7, 5), (1, 2, 4))],
)
def test_equals_loops_over_pixels(size: tuple[int, int], dilations: tuple[int, ...]) -> None:
    images, masks = torch.rand(2, 3, *size), torch.rand(2, 2, *size)
    out = pamr(images, masks, iterations=3, dilations=dilations)
    for image, mask, got in zip(images, masks, out, strict=True):
        wanted = by_loops(image.double().numpy(), mask.double().numpy(), 3, dilations)
        assert_close(got, wanted, terms(3, dilations))


def test_resizes_masks_to_the_image_with_aligned_corners() -> None:
    images, masks = torch.rand(1, 3, 9, 11), torch.rand(1, 2, 4, 3)
    grown = F.interpolate(masks, (9, 11), mode="bilinear", align_corners=True)
    assert_close(pamr(images, masks, iterations=0), grown, 4)
    assert_close(pamr(images, masks, iterations=2), pamr(images, grown, iterations=2), 4 + terms(2))


def test_strips_blocks_and_recomputed_rows_change_nothing() -> None:
    images, masks = torch.rand(1, 3, 30, 22), torch.rand(1, 7, 30, 22)
    whole = pamr(images, masks)
    small = Blocks(channels=3, pixels=100, compared=30)
    assert_close(pamr(images, masks, blocks=small), whole, PAMR)
    # The masks' own size still lets the first strips be kept; the others are computed in every round.
    assert_close(pamr(images, masks, blocks=small._replace(kept=0)), whole, PAMR)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 2**31))
def test_properties_of_an_averaging(size: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, *size, generator=generator)
    masks = torch.rand(2, 4, *size, generator=generator)
    out = pamr(images, masks, iterations=4)
    # Convex combinations of each channel's values; a constant channel therefore stays what it is.
    # Whatever the weights are, they add up to one: only the average itself rounds.
    rounding = float_tolerance(torch.float32, 4 * 48 + 48)
    assert (out.amax((2, 3)) <= masks.amax((2, 3)) + rounding).all()
    assert (out.amin((2, 3)) >= masks.amin((2, 3)) - rounding).all()
    assert_close(pamr(images, torch.full((2, 1, *size), 0.3), 4), torch.full((2, 1, *size), 0.3), 4 * 48 + 48)
    order = torch.randperm(4, generator=generator)
    assert_close(pamr(images, masks[:, order], 4), out[:, order], terms(4))
    assert_close(pamr(images[1:], masks[1:], 4), out[1:], terms(4))
    # The scale of the image cancels out; mirroring the input mirrors the output.
    # The 1e-8 beside the deviation does not cancel: it is a millionth of the smallest that these draws have.
    assert_close(pamr(images * 255, masks, 4), out, terms(4))
    assert_close(pamr(images.flip(3), masks.flip(3), 4), out.flip(3), terms(4))


def test_follows_an_edge() -> None:
    image = torch.zeros(1, 3, 20, 20)
    image[..., 10:] = 1
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 13:] = 1  # three columns beside the edge
    out = pamr(image, mask)[0, 0]
    assert out[:, :10].max() < 0.05
    assert out[:, 10:].min() > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float32_and_returns_the_masks_dtype(dtype: torch.dtype) -> None:
    images, masks = torch.rand(1, 3, 8, 9).to(dtype), torch.rand(1, 2, 8, 9).to(dtype)
    out = pamr(images, masks)
    assert out.dtype == dtype
    assert_close(out, pamr(images.float(), masks.float()), 1, dtype=dtype if dtype != torch.float64 else torch.float32)


def test_takes_uint8_images_and_boolean_masks() -> None:
    images = torch.randint(0, 256, (1, 3, 6, 6), dtype=torch.uint8)
    masks = torch.rand(1, 2, 6, 6) > 0.5
    assert_close(pamr(images, masks), pamr(images.float(), masks.float()), PAMR)


@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 5, 6), (2, 1, 1)])
def test_leaves_its_input_alone_and_keeps_no_graph(shape: tuple[int, ...]) -> None:
    images, masks = torch.rand(1, 3, *shape[1:]), torch.rand(1, *shape, requires_grad=True)
    before = images.clone(), masks.detach().clone()
    out = pamr(images, masks)
    assert not out.requires_grad
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


@pytest.mark.parametrize(("batch", "channels"), [(0, 2), (1, 0)])
def test_nothing_in_nothing_out(batch: int, channels: int) -> None:
    out = pamr(torch.rand(batch, 3, 4, 5), torch.rand(batch, channels, 2, 2))
    assert out.shape == (batch, channels, 4, 5)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ((3, 8, 8), (1, 2, 8, 8)),
        ((1, 4, 8, 8), (1, 2, 8, 8)),
        ((1, 3, 8, 8), (2, 8, 8)),
        ((2, 3, 8, 8), (1, 2, 8, 8)),
        ((1, 3, 0, 8), (1, 2, 8, 8)),
        ((1, 3, 8, 8), (1, 2, 8, 0)),
    ],
)
def test_refuses_wrong_shapes(images: tuple[int, ...], masks: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        pamr(torch.zeros(images), torch.zeros(masks))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_values_that_are_not_finite(bad: float) -> None:
    good, spoilt = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    spoilt[1, 2, 3, 3] = bad
    with pytest.raises(InputError, match="images"):
        pamr(spoilt, good)
    with pytest.raises(InputError, match="masks"):
        pamr(good, spoilt)


@pytest.mark.parametrize(("iterations", "dilations"), [(-1, (1,)), (1, ()), (1, (1, 0))])
def test_refuses_wrong_settings(iterations: int, dilations: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        pamr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), iterations, dilations)
