"""DenseCRF (Kraehenbuehl and Koltun, 2011): mean-field inference over all pairs of pixels, through
pydensecrf.

The defaults are those of the authors' sibling project: 10 iterations, a Gaussian kernel of weight 3 and sigma
1 pixel, a bilateral kernel of weight 4, sigma 67 pixels and 3 grey levels. Both kernels are Potts,
symmetrically normalised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ttd.errors import InputError, missing_extra
from ttd.refine.base import Refiner, register_refiner, working_image

# The least probability of the unary term: log 0 would forbid a label for ever.
_FLOOR = 1e-5
_BOOLEAN = (0.1, 0.9)


@register_refiner("crf")
class CRFRefiner(Refiner):
    """DenseCRF at the working size, with the defaults of `crf`."""

    @classmethod
    def check(cls) -> None:
        """See `Refiner`."""
        _load()

    def refine(self, image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
        """See `Refiner`.

        With a background the result tells by how much a label's marginal exceeds the background's, laid around the
        threshold: at the threshold both are equal, at 1 the label is certain, at 0 the background. One map at the
        threshold 0.5 is its marginal.
        """
        from ttd.inference.resizing import resize

        small = working_image(image)
        if background is None and len(maps) == 1:
            return torch.ones(1, small.height, small.width)
        values = resize(maps, (small.height, small.width)).clamp(0, 1).cpu().numpy()
        marginals = torch.from_numpy(crf(np.array(small), values, background=background))
        if background is None:
            return marginals
        lead = marginals - (1 - marginals.sum(0, keepdim=True)).clamp(min=0)  # -1..1
        return torch.where(lead < 0, background * (1 + lead), background + (1 - background) * lead)


def crf(
    image: NDArray[np.uint8],
    maps: NDArray[Any],
    *,
    background: float | None = 0.5,
    iterations: int = 10,
    gaussian_weight: float = 3.0,
    gaussian_sigma: float = 1.0,
    bilateral_weight: float = 4.0,
    bilateral_sigma: float = 67.0,
    bilateral_colour: float = 3.0,
) -> NDArray[np.float32]:
    """Marginal probabilities of the maps' labels after mean-field inference.

    The unary energy of a pixel is -log(max(p, 1e-5)) with the probabilities p of `unary_probabilities`. One
    binary map is the case N = 1: foreground p = map and background 1 - map (at `background` 0.5).

    Args:
        image: uint8 [H,W,3].
        maps: [N,H,W] in 0..1, N >= 1; with `background=None` N >= 2. Boolean maps count as 0.1 and 0.9: the
            two kernels weigh about 7 together and could never overturn the 11.5 of a certain label.
        background: the threshold at which a map ties with the background, between 0 and 1; None when the maps
            are all the labels there are.
        iterations: mean-field rounds, 0 or more; 0 returns the unary probabilities.
        gaussian_weight, gaussian_sigma: smoothness kernel; sigma in pixels.
        bilateral_weight, bilateral_sigma, bilateral_colour: appearance kernel; sigma in pixels and in grey
            levels.

    Returns:
        float32 [N,H,W] in 0..1. With a background its marginal is 1 - sum over the N maps; it wins where that
        is larger than every map.

    Raises:
        InputError: shapes, types or values that do not fit.
        MissingExtra: pydensecrf is not installed.
    """
    maps = _checked(image, maps, background)
    sigmas = (gaussian_sigma, bilateral_sigma, bilateral_colour)
    if iterations < 0 or min(gaussian_weight, bilateral_weight) < 0 or min(sigmas) <= 0:
        raise InputError("DenseCRF needs 0 or more iterations, weights of 0 or more and sigmas above 0.")
    densecrf = _load()
    p = unary_probabilities(maps, background)
    labels, height, width = p.shape
    field = densecrf.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(p, _FLOOR)).reshape(labels, -1)))
    field.addPairwiseGaussian(sxy=gaussian_sigma, compat=gaussian_weight)
    field.addPairwiseBilateral(
        sxy=bilateral_sigma, srgb=bilateral_colour, rgbim=np.ascontiguousarray(image), compat=bilateral_weight
    )
    marginals = np.asarray(field.inference(iterations), dtype=np.float32).reshape(p.shape)
    return marginals[: len(maps)].copy()


def unary_probabilities(maps: NDArray[np.float32], background: float | None = 0.5) -> NDArray[np.float32]:
    """The distribution over labels that DenseCRF starts from.

    With a threshold t each map m is moved in log-odds so that t becomes one half:
    m' = m (1 - t) / (m (1 - t) + (1 - m) t). The background is 1 - max m', and all labels are divided by
    their sum. So the background wins exactly where every map is below t, as before refinement. With None, the
    maps are divided by their sum (all zero: every label is equally likely).

    Args:
        maps: [N,H,W] in 0..1.
        background: t, between 0 and 1, or None.

    Returns:
        float32 [N+1,H,W], the background last, or [N,H,W] with None; sums to 1 over the labels.
    """
    if background is None:
        total = maps.sum(axis=0, keepdims=True)
        even = np.full_like(maps, 1 / len(maps))
        np.divide(maps, total, out=even, where=total > 0)
        return even
    towards, against = maps * (1 - background), (1 - maps) * background
    moved = towards / (towards + against)
    labels = np.concatenate([moved, 1 - moved.max(axis=0, keepdims=True)])
    result: NDArray[np.float32] = (labels / labels.sum(axis=0, keepdims=True)).astype(np.float32)
    return result


def _checked(image: NDArray[np.uint8], maps: NDArray[Any], background: float | None) -> NDArray[np.float32]:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"DenseCRF needs a uint8 image [H,W,3], not {image.dtype} {list(image.shape)}.")
    if maps.ndim != 3 or maps.shape[1:] != image.shape[:2]:
        raise InputError(
            f"DenseCRF needs maps [N,{image.shape[0]},{image.shape[1]}] for this image, not {list(maps.shape)}."
        )
    least = 1 if background is not None else 2
    if len(maps) < least:
        raise InputError(f"DenseCRF needs at least {least} maps here, not {len(maps)}.")
    if background is not None and not 0 < background < 1:
        raise InputError(f"DenseCRF's background threshold must be between 0 and 1, not {background}.")
    values = np.where(maps, *reversed(_BOOLEAN)) if maps.dtype == np.bool_ else maps
    values = values.astype(np.float32)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("DenseCRF needs maps between 0 and 1 without NaN: scale them first.")
    return values


def _load() -> Any:
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise missing_extra("crf", "DenseCRF needs pydensecrf (--refine none goes without)") from error
    return densecrf
