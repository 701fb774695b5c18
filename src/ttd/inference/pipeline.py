"""From images in any form to views that can be asked, by one encoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.images import ImageLike, read_image
from ttd.inference.feature_cache import FeatureCache
from ttd.inference.options import Options
from ttd.inference.protocols import Task
from ttd.inference.protocols import options as find_options
from ttd.inference.views import EncodedImage, View, ViewsOnDemand, prepare


class Pipeline:
    """Reads and prepares images, and encodes them now or while a question is answered.

    Attributes:
        encoder: what encodes.
        cache: features that are kept on disk; None: none are.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cache: FeatureCache | None = None

    def open(
        self, image: ImageLike | EncodedImage, options: Options | str | None, task: Task, *, keep: bool = False
    ) -> EncodedImage:
        """An image ready for questions; without `keep` views are encoded while a question is answered.

        Raises:
            InputError: an unusable image, or one that was encoded by another encoder or with other options.
        """
        if isinstance(image, EncodedImage):
            return self._with_options(image, options, task)
        settings = find_options(options, task)
        rgb = read_image(image)
        if self.cache is not None:
            cached = self.cache.views(rgb, settings)
            return EncodedImage(rgb, tuple(cached) if keep else cached, settings, self.encoder)
        pixels = [scaled[None] for scaled in prepare(rgb, self.encoder, settings)]
        views: Iterable[View] = ViewsOnDemand(self.encoder, pixels, settings)
        if keep:
            views = tuple(views)
        return EncodedImage(rgb, views, settings, self.encoder)

    def batches(
        self, images: dict[int, ImageLike | EncodedImage], given: Options | str | None, batch_size: int
    ) -> Iterable[tuple[list[int], Iterable[View]]]:
        """Numbers and views of images that share all shapes; encoded ones come alone."""
        options = find_options(given, "tags")
        waiting: dict[tuple[Any, ...], list[tuple[int, list[Tensor]]]] = {}
        for i, image in images.items():
            if isinstance(image, EncodedImage):
                yield [i], self._with_options(image, given, "tags").views
                continue
            pixels = prepare(read_image(image), self.encoder, options)
            waiting.setdefault(tuple(scaled.shape for scaled in pixels), []).append((i, pixels))
        for same in waiting.values():
            for first in range(0, len(same), batch_size):
                chunk = same[first : first + batch_size]
                scales = [torch.stack(pixels) for pixels in zip(*(p for _, p in chunk), strict=True)]
                yield [i for i, _ in chunk], ViewsOnDemand(self.encoder, scales, options)

    def _with_options(self, encoded: EncodedImage, options: Options | str | None, task: Task) -> EncodedImage:
        if encoded.encoder is not self.encoder:
            raise InputError("the encoded image comes from another model: encode it with this one")
        settings = encoded.options if options is None else find_options(options, task)
        changed = [name for name, value in settings.view.items() if value != encoded.options.view[name]]
        if changed:
            raise InputError(f"the image was encoded with another {changed[0]}: encode it again")
        return replace(encoded, options=settings)
