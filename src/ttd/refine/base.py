"""The interface of refiners, and the refiners by name.

A refiner is one class with one `@register_refiner`; another package names its module in its entry points:

    [project.entry-points."ttd.refiners"]
    smooth = "smooth_refiner"

Shapes: N maps, h x w patches, H' x W' pixels of the refiner's own grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ttd.registry import REFINERS, origin_of

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder
    from ttd.inference.options import Options

WORKING_SIDE = 1024


class Refiner(ABC):
    """Makes maps follow the edges of an image."""

    @classmethod
    def check(cls) -> None:
        """Raises `MissingExtra` where a package that it needs is not installed; asked before images are encoded."""
        return None

    @classmethod
    def create(cls, encoder: Encoder, options: Options) -> Refiner:
        """The refiner for a model's questions; asked again for other options."""
        return cls()

    @abstractmethod
    def refine(self, image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
        """Refine maps that compete with each other.

        Args:
            image: RGB, any size.
            maps: `[N,h,w]` in 0..1 over the whole image, N at least 1.
            background: the threshold in 0..1 that background stands for: a pixel is background where every map is
                below it. None: there is no background.

        Returns:
            `[N,H',W']` in 0..1 on any grid over the whole image, to be read as `maps` are: the highest map wins, and
            below `background` nothing does.

        Raises:
            InputError: an image or maps that cannot be refined.
            MissingExtra: a package is not installed.
        """

    def refine_each(self, image: Image.Image, maps: Tensor, background: float) -> Tensor:
        """Refine maps that may overlap, each against the background alone: `[N,h,w]` -> `[N,H',W']`."""
        return torch.cat([self.refine(image, one[None], background) for one in maps])


R = TypeVar("R", bound=type[Refiner])


def register_refiner(name: str) -> Callable[[R], R]:
    """Decorate a `Refiner` to make it known under `name`, as `refine="name"` and `--refine name`.

    Raises:
        InputError: the name is taken or is not a name.
    """

    def register(refiner: R) -> R:
        REFINERS.add(name, refiner, origin_of(refiner))
        return refiner

    return register


def find_refiner(name: str) -> type[Refiner]:
    """The refiner with that name.

    Raises:
        InputError: there is none.
    """
    refiner: type[Refiner] = REFINERS.find(name)
    return refiner


def working_image(image: Image.Image) -> Image.Image:
    """The image, with its longer side shrunk to at most `WORKING_SIDE` pixels."""
    factor = WORKING_SIDE / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
