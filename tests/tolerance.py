"""How far two float computations of the same thing may lie apart, and comparisons that allow that much and no more.

Bitwise equality is promised by no numerical library. The order in which the terms of a sum are added depends on the
processor's vectors, the number of threads, the shape of the batch and where the weights lie in memory, and with the
order go the roundings. So bits are compared only where nothing is computed twice in two ways: integers, labels,
bytes, values that were only copied or stored, the same code on the same tensors in one process, and what the package
promises (a run that was broken off ends as the whole one does on the same machine). Everything else goes through
this module. (Shares of counted pixels, words or pairs in float64 may be compared with `pytest.approx`: one count more
is far above its 1e-6.)

Where the tolerance comes from. Let `terms` be the number of additions one after the other on the longest way from
the input to the result: the lengths of the sums of all layers, added up. Every addition rounds to within eps / 2 of
its partial sum, which is about as large as the result (`scale`; norms keep it there from layer to layer). The
roundings are independent, so they add up in squares:

    one computation:        roundings are uniform in +-eps / 2, partial sums grow to the result, so their mean
                            square is half of its: a deviation of sqrt(terms / 6) * eps / 2 * size
    two computations:       sqrt(2) times that, 0.29 * eps * sqrt(terms) * size
    many elements:          `scale` is the largest element, most are a third of it or less; the largest of 100,000
                            deviations is 4.4 times the usual: 0.43 * eps * sqrt(terms) * scale
    unlucky numbers:        elements that are all alike are three times the third, a network may double an error;
                            not both at once: 1.3 * eps * sqrt(terms) * scale

which is rounded up to SAFETY = 2. (Without independence the bound has `terms` in place of its root: Higham, "Accuracy
and Stability of Numerical Algorithms", section 4.2; that the root holds in practice: Higham and Mary, "A New Approach
to Probabilistic Rounding Error Analysis", 2019.) A function behind the sums passes its own slope on: 10 for
sigmoid(40 x), say, which the caller puts into `scale`, as well as the size of the parts where these cancel out.

`eps` is that of the type in which results are rounded: in bfloat16 and float16 the sums run in float32, and each
layer rounds once, so that there `terms` is the number of layers.

What it still sees: a weight matrix that is wrong by 1e-3 of its size changes results by about 1e-3 of theirs, and
`terms` of 2,000 in float32 allows 1e-5. `test_tolerance.py` makes such faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ttd.encoders.base import Encoder
from ttd.results import Tagging

SAFETY = 2.0
# At most this part of the pixels may be too close to call, or the comparison of labels would say nothing.
UNDECIDED = 0.02


def tower(
    *, blocks: int, width: int, tokens: int, first: int = 0, hidden: int | None = None, embedding: int = 48
) -> int:
    """Additions one after the other in a transformer, from its input to the normalised embedding.

    Args:
        first: length of the sum that makes a token: channels times the patch's pixels, 0 for a table's row.
        hidden: width of the MLPs; twice `width` in `tests.tiny_models`.
    """
    attention = 3 * width + 2 * tokens + width  # norm, projection, scores; softmax, average; the way out
    mlp = 2 * width + (hidden or 2 * width)  # norm, the way in, the way out
    return first + blocks * (attention + mlp) + 2 * width + embedding


PIXELS = 3 * 16 * 16
TINY_IMAGE = tower(blocks=2, width=64, tokens=25, first=PIXELS)
TINY_TEXT = tower(blocks=2, width=64, tokens=77)
TINY = max(TINY_IMAGE, TINY_TEXT)  # whatever a tiny CLIP or SigLIP gives
LAYERS = 2 * 8 + 4  # of a tiny tower, each with an output that is rounded: what counts in half precision
COSINES = TINY_IMAGE + TINY_TEXT + 48  # of a tiny CLIP: both sides and their product
# The blocks of a tiny TCL, then four gated 3 x 3 convolutions, each with a norm.
TINY_TCL = tower(blocks=3, width=128, tokens=25, first=PIXELS, hidden=512) + 4 * (9 * 128 + 128)
COSINES_TCL = TINY_TCL + TINY_TEXT + 48
# The embedded model's cosines, with towers of its own sizes.
MINI = (
    tower(blocks=4, width=192, tokens=65, first=PIXELS, hidden=768, embedding=192)
    + tower(blocks=2, width=128, tokens=77, hidden=512, embedding=192)
    + 192
)
# `tests.colour_encoder`: the mean of 16 pixels, two norms and a product of four channels, a resize, a scaling.
COLOURS = 16 + 3 * 4 + 4 + 2
# TCL's PAMR, by default ten rounds over 48 neighbours. A weight is the softmax of differences of colours over a tenth
# of the deviation of 54: the tenth multiplies the error of that deviation.
PAMR = 10 * 48 + 10**2 * 54
# A training step: forwards, backwards through both factors of every product, and the sum over a batch's images.
TRAINING_STEP = 3 * COSINES


def float_tolerance(dtype: torch.dtype, terms: int, *, scale: float = 1.0) -> float:
    """The largest difference that roundings explain (see the module).

    Args:
        dtype: in which results are rounded.
        terms: additions one after the other on the longest way to the result, at least 1.
        scale: size of the results, or of the parts that make them up if these cancel out.
    """
    return SAFETY * torch.finfo(dtype).eps * float(max(terms, 1)) ** 0.5 * scale


def map_scale(sim: torch.Tensor) -> float:
    """What scaling cosines `[N,h,w]` to 0..1 makes of their size: errors of the ends and the middle grow alike."""
    values = sim.flatten(-2)
    ranges = values.amax(-1) - values.amin(-1)
    return 2 * float(values.abs().max() / ranges.min())


def calibrated_scale(encoder: Encoder) -> float:
    """What `p = sigmoid(w (cos - c))` makes of the size of cosines: its steepest slope."""
    return encoder.calibration.w / 4


def assert_close(
    found: Any, expected: Any, terms: int, *, scale: float | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Every value lies where roundings can have brought it; NaN and infinities only where they are expected.

    Args:
        found, expected: tensors, arrays or (lists of) numbers of one shape.
        scale: the largest finite magnitude of `expected` if not given.
    """
    a, b = as_float64(found), as_float64(expected)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    if scale is None:
        scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    allowed = float_tolerance(dtype, terms, scale=scale)
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    wrong = ~(difference <= allowed)
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} values differ by more than {allowed:.3g}, "
        f"by up to {difference[wrong].max():.3g}, first at {np.argwhere(wrong)[0].tolist()}"
    )


def assert_same_record(found: Any, expected: Any, terms: int, *, scale: float | None = None) -> None:
    """Nested dicts and lists are equal, except that floats are as close as `assert_close` asks."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same_record(found[key], value, terms, scale=scale)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_record(one, other, terms, scale=scale)
    elif isinstance(expected, float):
        assert_close(found, expected, terms, scale=scale)
    else:
        assert found == expected


def assert_same_tagging(found: Tagging, expected: Tagging, terms: int, *, scale: float = 1.0) -> None:
    """Two taggings are equal, except that scores and the cut between them are as close as `assert_close` asks."""
    assert_same_record(asdict(found), asdict(expected), terms, scale=scale)


def largest_difference(one: Any, other: Any) -> float:
    """Largest absolute difference of two tensors or arrays, to say that they do differ."""
    a, b = as_float64(one), as_float64(other)
    assert a.shape == b.shape
    return float(np.abs(a - b).max())


# ------------------------------------------------------------------ decisions


def label_margin(maps: Any, background: float | None = None) -> np.ndarray:
    """How far each pixel's label is from another one: `[...]` of maps `[N,...]`.

    The label is the largest map's, or the background where that lies below `background`.
    """
    values = np.sort(as_float64(maps), axis=0)
    margin = values[-1] - values[-2] if len(values) > 1 else np.full(values.shape[1:], np.inf)
    if background is None:
        return np.asarray(margin)
    cut = values[-1] - background
    return np.where(cut < 0, -cut, np.minimum(margin, cut))


def assert_same_decisions(found: Any, expected: Any, margin: Any, tolerance: float) -> None:
    """Labels or masks are equal, except where the values behind them are too close to call.

    Args:
        found, expected: integer or boolean arrays of one shape.
        margin: of that shape, how far the values are from another decision (`label_margin`, |map - threshold|).
        tolerance: by how much the values may differ; each side of a comparison by that much.
    """
    a, b = np.asarray(found), np.asarray(expected)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    clear = np.abs(as_float64(margin)) > 2 * tolerance
    wrong = (a != b) & clear
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} decisions differ, first at {np.argwhere(wrong)[0].tolist()}"
    assert (~clear).mean() <= UNDECIDED, f"{(~clear).mean():.1%} of the decisions are too close to be compared"


# ------------------------------------------------------------------ training


def assert_same_training(found: Mapping[str, Any], expected: Mapping[str, Any], *, lr: float, steps: int) -> None:
    """Two trainings that add up the same gradients in another order end at the same parameters.

    Adam moves a parameter by lr * g / |g|, smoothed: what counts is the error of a gradient against itself, not
    against the largest. With an error of delta (`TRAINING_STEP`, in the gradients' usual size), a gradient of the
    usual size moves its parameter by lr * delta too far, one of a tenth of that size by 10 * lr * delta, one of a
    thousandth by 1000 * lr * delta, and one below delta may turn round. At a bell's density 8 % lie below a tenth and
    0.08 % below a thousandth. So per step nine of ten parameters may differ by 10 * lr * delta, and 999 of a thousand
    by 1000 * lr * delta, which is a fortieth of a step.
    """
    assert found.keys() == expected.keys()
    gaps = np.concatenate([np.abs(as_float64(found[k]) - as_float64(expected[k])).ravel() for k in expected])
    delta = float_tolerance(torch.float32, TRAINING_STEP)
    for share, factor in ((0.9, 10), (0.999, 1000)):
        most, allowed = float(np.quantile(gaps, share)), factor * delta * lr * steps
        assert most <= allowed, f"{1 - share:.1%} of the parameters differ by more than {most:.3g}, not {allowed:.3g}"


def as_float64(values: Any) -> np.ndarray:
    """Tensors (with or without a graph), arrays and numbers as float64 arrays."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)
