"""Maps of texts over a batch of images, and what pixels get from them, before and after refinement.

Shapes: B images, N texts, C embedding channels, h x w cells of a map, H x W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures, MapQuestion, Raised
from ttd.inference.masks import LabelRule, all_masks, all_values, class_maps, normed_blocks
from ttd.inference.options import Options
from ttd.inference.stitching import Block, Stitched
from ttd.inference.views import View, prepare
from ttd.maps import norm
from ttd.refine.base import Refiner, find_refiner

Scale = Literal["norm", "calibrated"]

# Values of all maps that PAMR refines together at an image's own size.
_REFINED_VALUES = 16_000_000


class DenseMaps:
    """The maps of one encoder, and the refiners that its questions named so far."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._refiners: dict[tuple[Any, ...], Refiner] = {}

    def check(self, options: Options) -> None:
        """Raises `MissingExtra` where a refiner's package is not installed, before anything is encoded."""
        name = options.refinement(self._encoder)
        if name != "none":
            find_refiner(name).check()

    def ask(
        self,
        views: Iterable[View],
        text: Tensor,
        options: Options,
        *,
        threshold: float | None = None,
        classes: Sequence[int] | None = None,
    ) -> Stitched:
        """Maps of texts over B images: cosines, or what an encoder with `averages` "maps" gives (TCL's own masks).

        Args:
            views: of B images.
            text: `[N,C]`, normalised.
            options: how the question is put.
            threshold: below it the caller makes no difference between values: a map may go without PAMR.
            classes: to which class each text belongs, for methods that ask; None: each is one by itself.
        """
        encoder = self._encoder
        ask: Callable[[ImageFeatures], Tensor | Raised]
        if encoder.averages == "maps":
            inside = options.refinement(encoder) if self._inside(options) else "none"
            # Where views are averaged it is not these maps that are cut.
            cut = threshold if options.one_view else None
            question = MapQuestion(inside, cut, options.clip_weight)

            def ask(features: ImageFeatures) -> Tensor:
                return encoder.maps(features, text, question)
        else:
            index = None if classes is None else torch.tensor(list(classes), device=text.device)

            def ask(features: ImageFeatures) -> Tensor | Raised:
                return encoder.logits(features, text, index)

        return Stitched.ask(views, ask, options.window is not None and not encoder.together)

    def values(self, asked: Stitched, number: int, image: Image.Image, options: Options, scale: Scale) -> NDArray[Any]:
        """Heat maps of one image's texts, each refined by itself: float32 `[N,H,W]` in 0..1.

        Args:
            asked: see `ask`.
            number: of the image in the batch.
            image: it.
            options: how the question is put.
            scale: "calibrated" by the model's two numbers, so that maps compare with each other and with a threshold;
                or each by itself from its lowest to its highest value (`norm`), for people to look at.
        """
        size = (image.height, image.width)
        refiner = self._refiner(options)
        scaled = self._scaled(scale)
        if refiner is not None:
            maps = scaled(asked.read(number, asked.grid))
            refined = refiner.refine_each(image, maps, options.caption_threshold(self._encoder))
            return all_values(Stitched.of(refined[None]).blocks(0, size), asked.count, size)
        blocks = self._blocks(asked, number, image, options)()
        if scale == "norm":
            whole = torch.from_numpy(all_values(blocks, asked.count, size))
            return np.stack([norm(one).numpy() for one in whole])
        return all_values(((maps, rows, scaled(block)) for maps, rows, block in blocks), asked.count, size)

    def masks(self, asked: Stitched, number: int, image: Image.Image, options: Options) -> NDArray[np.bool_]:
        """Where each of one image's texts reaches the threshold of captions, each by itself: bool `[N,H,W]`."""
        size, threshold = (image.height, image.width), options.caption_threshold(self._encoder)
        refiner = self._refiner(options)
        if refiner is None:
            blocks = self._blocks(asked, number, image, options)()
            return all_masks(blocks, asked.count, size, self._scaled("calibrated"), threshold)
        maps = self._scaled("calibrated")(asked.read(number, asked.grid))
        refined = refiner.refine_each(image, maps, threshold)
        return all_masks(Stitched.of(refined[None]).blocks(0, size), asked.count, size, None, threshold)

    def labels(
        self,
        asked: Stitched,
        number: int,
        image: Image.Image,
        options: Options,
        classes: Sequence[int],
        kept: int | None,
    ) -> NDArray[np.int64]:
        """The class of each pixel of one image, -1 where it is background by a threshold: int64 `[H,W]`.

        Args:
            asked: see `ask`.
            number: of the image in the batch.
            image: it.
            options: how the question is put.
            classes: of each text, ascending from 0.
            kept: the class that is the background, by its own words; None: there is none.
        """
        encoder, size = self._encoder, (image.height, image.width)
        threshold = options.threshold(encoder)
        logit_scale = options.logit_scale
        if logit_scale is None and options.prob_threshold is not None:
            logit_scale = encoder.logit_scale
        refiner = self._refiner(options)
        small, normed = options.area_threshold, options.label_scale != "calibrated"
        if refiner is None:
            value = None if normed else self._scaled("calibrated")
            rule = LabelRule(tuple(classes), value, threshold, logit_scale or 1.0, options.prob_threshold, small, kept)
            blocks = self._blocks(asked, number, image, options)
            if normed:
                patches = options.label_scale == "norm-patches"
                blocks = normed_blocks(
                    blocks, partial(asked.blocks, number, asked.grid) if patches else blocks, asked.count
                )
            return rule.labels(blocks, size)
        maps = asked.read(number, asked.grid)
        if normed:
            maps = norm(maps)
        if logit_scale is not None and threshold is None:
            maps, threshold = (logit_scale * maps).softmax(0), options.prob_threshold
        elif not normed:
            maps = self._scaled("calibrated")(maps)
        maps = class_maps(maps, tuple(classes))
        refined = Stitched.of(refiner.refine(image, maps, threshold)[None])
        rule = LabelRule(tuple(range(len(maps))), threshold=threshold, area_threshold=small, kept=kept)
        return rule.labels(lambda: refined.blocks(0, size), size)

    def _scaled(self, scale: Scale) -> Callable[[Tensor], Tensor]:
        """What makes of averaged maps values in 0..1."""
        if scale == "norm":
            return norm
        return _as_they_are if self._encoder.averages == "maps" else self._encoder.calibration

    def _blocks(
        self, asked: Stitched, number: int, image: Image.Image, options: Options
    ) -> Callable[[], Iterator[Block]]:
        """One image's maps at its own size, where no refiner of other maps takes part; PAMR of these very maps may."""
        size = (image.height, image.width)
        if options.refinement(self._encoder) == "pamr" and options.pamr_grid == "image":
            return partial(self._with_pamr, asked, number, image, options)
        return partial(asked.blocks, number, size)

    def _with_pamr(self, asked: Stitched, number: int, image: Image.Image, options: Options) -> Iterator[Block]:
        """Maps at the image's own size after PAMR there, by the image as the encoder sees it, enlarged."""
        from ttd.refine.pamr import pamr

        size = (image.height, image.width)
        plain = replace(options, resize="opencv") if options.resize == "opencv-patches" else options
        seen = prepare(image, self._encoder, plain)[0][None].to(self._encoder.device)
        large = interpolate(seen, size, mode="bilinear", align_corners=False)
        some = max(1, min(asked.count, _REFINED_VALUES // (size[0] * size[1])))
        for first in range(0, asked.count, some):
            maps = slice(first, min(first + some, asked.count))
            whole = asked.read(number, size, maps)
            yield maps, slice(0, size[0]), pamr(large, whole[None], options.pamr_steps, options.pamr_dilations)[0]

    def _inside(self, options: Options) -> bool:
        """Whether the encoder refines its own maps within each view."""
        own = self._encoder.averages == "maps" and options.refinement(self._encoder) in self._encoder.refined_inside
        return own and options.pamr_grid == "quarter"

    def _refiner(self, options: Options) -> Refiner | None:
        """What refines maps after they were put together, made once for all questions with the same options."""
        name = options.refinement(self._encoder)
        if name == "none" or self._inside(options) or (name == "pamr" and options.pamr_grid == "image"):
            return None
        key = (name, options.size, options.sam_model, options.pamr_steps, options.pamr_dilations)
        if key not in self._refiners:
            kind = find_refiner(name)
            kind.check()
            self._refiners[key] = kind.create(self._encoder, options)
        return self._refiners[key]


def _as_they_are(maps: Tensor) -> Tensor:
    return maps
