"""From images in any form to encoded views, by one encoder: one image, or many in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ttd.encoders.base import Encoder
from ttd.errors import InputError, TTDError
from ttd.images import ImageLike, read_image
from ttd.inference.feature_cache import FeatureCache
from ttd.inference.options import Options
from ttd.inference.protocols import Task
from ttd.inference.protocols import options as find_options
from ttd.inference.views import EncodedImage, View, ViewsOnDemand, prepare

# So many batches, and not much more than so many pixels, are read ahead to find images of the same shape.
BATCHES_AHEAD = 8
PIXELS_AHEAD = 100_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class ImageBatch:
    """Images that share all prepared shapes.

    Attributes:
        numbers: their places in the input.
        images: upright RGB.
        views: of all of them.
        options: how they are asked.
    """

    numbers: list[int]
    images: list[Image.Image]
    views: Iterable[View]
    options: Options


class Pipeline:
    """Reads and prepares images, and encodes them now or while a question is answered.

    Attributes:
        encoder: what encodes.
        cache: features that are kept on disk; None: none are.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cache: FeatureCache | None = None

    def options(self, given: Options | str | None, task: Task, **changes: Any) -> Options:
        """See `ttd.inference.protocols.options`."""
        return find_options(given, task, **changes)

    def open(
        self, image: ImageLike | EncodedImage, options: Options | str | None, task: Task, *, keep: bool = False
    ) -> EncodedImage:
        """An image ready for questions; without `keep` views are encoded while a question is answered.

        Raises:
            InputError: an unusable image, or one that was encoded by another encoder or with other options.
        """
        if isinstance(image, EncodedImage):
            return self._with_options(image, options, task)
        settings = self.options(options, task)
        rgb = read_image(image)
        if self.cache is not None:
            cached = self.cache.views(rgb, settings)
            return EncodedImage(rgb, tuple(cached) if keep else cached, settings, self.encoder)
        pixels = [scaled[None] for scaled in prepare(rgb, self.encoder, settings)]
        views: Iterable[View] = ViewsOnDemand(self.encoder, pixels, settings, [rgb])
        if keep:
            views = tuple(views)
        return EncodedImage(rgb, views, settings, self.encoder)

    def answers(
        self,
        images: Iterable[ImageLike | EncodedImage],
        options: Options | str | None,
        task: Task,
        batch_size: int,
        answer: Callable[[ImageBatch], list[T]],
    ) -> Iterator[T | TTDError]:
        """One answer per image, in order; for an image that cannot be used the error.

        Args:
            images: read a bounded number ahead; images of the same prepared shape share a batch.
            options: as for `open`.
            task: as for `open`.
            batch_size: images that are asked about at once.
            answer: a batch's answers, in its order. Where it raises `InputError`, its images are asked one by one.

        Raises:
            InputError: options that cannot be, or a batch size below 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.options(options, task)
        return self._answers(images, options, task, batch_size, answer)

    def _answers(
        self,
        images: Iterable[ImageLike | EncodedImage],
        options: Options | str | None,
        task: Task,
        batch_size: int,
        answer: Callable[[ImageBatch], list[T]],
    ) -> Iterator[T | TTDError]:
        done: dict[int, T | TTDError] = {}
        waiting: dict[tuple[Any, ...], list[tuple[int, EncodedImage, list[Tensor]]]] = {}
        following = ahead = 0
        for number, image in enumerate(images):
            try:
                opened, pixels = self._prepared(image, options, task)
            except TTDError as error:
                done[number] = error
            else:
                ahead += opened.image.width * opened.image.height
                # Encoded images come alone: their views are there already.
                shapes = (*(scaled.shape for scaled in pixels),) or (number,)
                waiting.setdefault(shapes, []).append((number, opened, pixels))
                if len(waiting[shapes]) == batch_size or not pixels:
                    done |= self._ask(waiting.pop(shapes), answer)
            if sum(map(len, waiting.values())) >= batch_size * BATCHES_AHEAD or ahead > PIXELS_AHEAD:
                done |= {key: value for same in waiting.values() for key, value in self._ask(same, answer).items()}
                waiting, ahead = {}, 0
            while following in done:
                yield done.pop(following)
                following += 1
        for same in waiting.values():
            done |= self._ask(same, answer)
        for number in sorted(done):
            yield done[number]

    def _prepared(
        self, image: ImageLike | EncodedImage, options: Options | str | None, task: Task
    ) -> tuple[EncodedImage, list[Tensor]]:
        """An image with its pixels for each scale; without pixels where its views are there, or kept on disk."""
        if isinstance(image, EncodedImage) or self.cache is not None:
            return self.open(image, options, task), []
        settings = self.options(options, task)
        rgb = read_image(image)
        return EncodedImage(rgb, (), settings, self.encoder), prepare(rgb, self.encoder, settings)

    def _ask(
        self, same: list[tuple[int, EncodedImage, list[Tensor]]], answer: Callable[[ImageBatch], list[Any]]
    ) -> dict[int, Any]:
        """Answers about images of one shape by their numbers; one by one where all together fail."""
        numbers, opened, pixels = zip(*same, strict=True)
        options = opened[0].options
        views: Iterable[View] = opened[0].views
        if pixels[0]:
            scales = [torch.stack(several) for several in zip(*pixels, strict=True)]
            views = ViewsOnDemand(self.encoder, scales, options, [one.image for one in opened])
        try:
            found = answer(ImageBatch(list(numbers), [one.image for one in opened], views, options))
            return dict(zip(numbers, found, strict=True))
        except InputError as error:
            if len(same) == 1:
                return {numbers[0]: error}
            return {number: value for one in same for number, value in self._ask([one], answer).items()}

    def _with_options(self, encoded: EncodedImage, options: Options | str | None, task: Task) -> EncodedImage:
        if encoded.encoder is not self.encoder:
            raise InputError("the encoded image comes from another model: encode it with this one")
        settings = encoded.options if options is None else self.options(options, task)
        changed = [name for name, value in settings.view.items() if value != encoded.options.view[name]]
        if changed:
            raise InputError(f"the image was encoded with another {changed[0]}: encode it again")
        return replace(encoded, options=settings)
