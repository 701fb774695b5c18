"""Maps of texts over a batch of images, before and after refinement.

Shapes: B images, N texts, C embedding channels, h x w patches of the canvas (the finest view's grid over an image).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.encoders.features import MapQuestion
from ttd.inference.options import Options
from ttd.inference.views import View, average
from ttd.maps import norm
from ttd.refine.base import Refiner, find_refiner

Scale = Literal["norm", "calibrated"]


class DenseMaps:
    """The maps of one encoder, and the refiners that its questions named so far."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._refiners: dict[tuple[Any, ...], Refiner] = {}

    def maps(
        self,
        views: Iterable[View],
        text: Tensor,
        options: Options,
        *,
        scale: Scale = "calibrated",
        threshold: float | None = None,
    ) -> Tensor:
        """Maps `[B,N,h,w]` in 0..1, averaged over the views. An encoder may refine its own here (TCL), others later.

        Args:
            views: of B images.
            text: `[N,C]`, normalised.
            options: how the question is put.
            scale: "calibrated" by the model's two numbers, so that maps compare with each other and with a threshold;
                or each by itself from its lowest to its highest value (`norm`), for people to look at.
            threshold: below it the caller makes no difference between values: a map may go without PAMR.
        """
        encoder = self._encoder
        if encoder.averages == "maps":
            refine = options.refinement(encoder)
            inside = refine if refine in encoder.refined_inside else "none"
            # Where views are averaged it is not these maps that are cut.
            cut = threshold if options.one_view else None
            question = MapQuestion(inside, cut, options.clip_weight)
            maps = average(views, lambda features: encoder.maps(features, text, question))
            return norm(maps) if scale == "norm" else maps
        sim = average(views, lambda features: encoder.similarity(features, text))
        return norm(sim) if scale == "norm" else encoder.calibration(sim)

    def refined(self, image: Image.Image, maps: Tensor, options: Options, threshold: float | None) -> Tensor:
        """Maps `[N,h,w]` of one image that compete with each other: `[N,H',W']`; see `ttd.Refiner.refine`."""
        refiner = self._refiner(options)
        return maps if refiner is None else refiner.refine(image, maps, threshold)

    def refined_each(self, image: Image.Image, maps: Tensor, options: Options, threshold: float) -> Tensor:
        """Maps `[N,h,w]` of one image, each by itself: `[N,H',W']`; see `ttd.Refiner.refine_each`."""
        refiner = self._refiner(options)
        return maps if refiner is None else refiner.refine_each(image, maps, threshold)

    def _refiner(self, options: Options) -> Refiner | None:
        """What refines maps after they were put together, made once for all questions with the same options."""
        name = options.refinement(self._encoder)
        if name == "none" or (self._encoder.averages == "maps" and name in self._encoder.refined_inside):
            return None
        key = (name, options.size, options.sam_model)
        if key not in self._refiners:
            self._refiners[key] = find_refiner(name).create(self._encoder, options)
        return self._refiners[key]
