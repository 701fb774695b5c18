"""What a refiner promises, and the refiners by name.

A refiner is one class with one `@register_refiner`; it may stand in another package:

    @register_refiner("smooth")
    class Smooth(Refiner):
        def refine(self, image, maps, background): ...

Shapes: N maps, h x w patches, H' x W' pixels of the refiner's own grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder
    from ttd.inference.options import Options

WORKING_SIDE = 1024


class Refiner(ABC):
    """Makes maps follow the edges of an image."""

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


# Where the package's own refiners are registered: their libraries load when one is asked for.
_OWN = {"pamr": "ttd.refine.pamr", "crf": "ttd.refine.crf", "sam": "ttd.refine.sam"}
_REGISTERED: dict[str, type[Refiner]] = {}
R = TypeVar("R", bound=type[Refiner])


def register_refiner(name: str) -> Callable[[R], R]:
    """Decorate a `Refiner` to make it known under `name`, as `refine="name"` and `--refine name`.

    Raises:
        ValueError: the name is taken.
    """

    def register(refiner: R) -> R:
        if name in ("none", "auto") or _REGISTERED.get(name, refiner).__qualname__ != refiner.__qualname__:
            raise ValueError(f"the refiner {name!r} is registered already")
        _REGISTERED[name] = refiner
        return refiner

    return register


def refiner_names() -> tuple[str, ...]:
    """All names for `refine`, "none" first."""
    return tuple(dict.fromkeys(["none", *_OWN, *_REGISTERED]))


def find_refiner(name: str) -> type[Refiner]:
    """The refiner of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _REGISTERED and name in _OWN:
        import_module(_OWN[name])
    if name not in _REGISTERED:
        raise InputError(f"unknown refinement {name!r}: choose from {', '.join(refiner_names())}, auto")
    return _REGISTERED[name]


def working_image(image: Image.Image) -> Image.Image:
    """The image, with its longer side shrunk to at most `WORKING_SIDE` pixels."""
    factor = WORKING_SIDE / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
