"""What an encoder keeps of images, and how it is asked for maps of texts over them.

Shapes: B images, N texts, C embedding channels, H x W pixels, h x w cells of a feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ttd.errors import InputError


@dataclass(frozen=True)
class ImageFeatures:
    """What `encode_image` keeps of a batch of images, enough to ask any number of texts later. All float32.

    Attributes:
        dense: `[B,C,h,w]`, L2-normalised over C; covers the padded image.
        pooled: `[B,C]`, L2-normalised: the encoder's ordinary image embedding.
        size: (H, W) of the pixels given.
        offset: (top, left) padding in pixels, (0, 0) where there is none.
        padded: (H, W) after padding, equal to `size` where there is none.
        extras: what this encoder's own maps need besides, by name, `[B,...]` each; kept and moved with the others.
    """

    dense: Tensor
    pooled: Tensor
    size: tuple[int, int]
    offset: tuple[int, int]
    padded: tuple[int, int]
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def select(self, index: slice | Tensor | Sequence[int]) -> ImageFeatures:
        """The features of some images of the batch, by slice or by indices (which may repeat)."""
        return self._map(lambda t: t[index])

    @staticmethod
    def joined(several: Sequence[ImageFeatures]) -> ImageFeatures:
        """Features of several batches of the same sizes as those of one."""
        first = several[0]
        extras = {name: torch.cat([one.extras[name] for one in several]) for name in first.extras}
        dense, pooled = (torch.cat([getattr(one, name) for one in several]) for name in ("dense", "pooled"))
        return replace(first, dense=dense, pooled=pooled, extras=extras)

    def to(self, *args: Any, **kwargs: Any) -> ImageFeatures:
        """Move every tensor as `Tensor.to` does."""
        return self._map(lambda t: t.to(*args, **kwargs))

    def crop(self, maps: Tensor) -> Tensor:
        """Cut the padding off maps `[...,H,W]` of the padded size, giving the size of the pixels given."""
        top, left = self.offset
        return maps[..., top : top + self.size[0], left : left + self.size[1]]

    def enlarge(self, maps: Tensor) -> Tensor:
        """Maps `[B,N,h,w]` over the padded image -> `[B,N,H,W]` at the pixels' own size (bilinear)."""
        return self.crop(interpolate(maps, self.padded, mode="bilinear"))

    def inside(self, grid: tuple[int, int]) -> Tensor:
        """Which cells of a map over the padded image have their centre in the image: bool `[h,w]`."""
        axes = []
        for cells, full, first, length in zip(grid, self.padded, self.offset, self.size, strict=True):
            centres = (torch.arange(cells, device=self.dense.device) + 0.5) * (full / cells)
            axes.append((centres > first) & (centres < first + length))
        return axes[0][:, None] & axes[1][None, :]

    def extra(self, name: str, what: str) -> Tensor:
        """An entry of `extras`, `[B,...]`; `InputError` says that these features lack `what`."""
        if name not in self.extras:
            raise InputError(f"these features lack {what}: encode the image with this encoder's encode_image")
        return self.extras[name]

    def _map(self, change: Callable[[Tensor], Tensor]) -> ImageFeatures:
        extras = {name: change(tensor) for name, tensor in self.extras.items()}
        return replace(self, dense=change(self.dense), pooled=change(self.pooled), extras=extras)


@dataclass(frozen=True)
class MapQuestion:
    """How an encoder is asked for maps; it heeds what concerns it.

    Attributes:
        refine: a refinement that the encoder does within its maps, one of its `refined_inside`; else "none".
        threshold: at which these very maps are cut (one view, no averaging); None where their values matter.
        clip_weight: in 0..1, the weight of a frozen branch, where the encoder has one; None: its own.
    """

    refine: str = "none"
    threshold: float | None = None
    clip_weight: float | None = None


PLAIN_MAPS = MapQuestion()


@dataclass(frozen=True)
class Raised:
    """Maps of which, at each pixel, one is raised over all others, without a value for every text and pixel.

    Attributes:
        low: `[B,N,h,w]`, to be enlarged bilinearly.
        best: int32 `[B,H,W]`, the text that is raised at each pixel; -1 where it is none of these.
        top: `[B,H,W]`, the highest enlarged value of any text, without gradient.
        lead: how far above that the raised one lies.
    """

    low: Tensor
    best: Tensor
    top: Tensor
    lead: float

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, N, H, W)."""
        return self.low.shape[0], self.low.shape[1], self.best.shape[1], self.best.shape[2]

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.low.device

    def whole(self) -> Tensor:
        """The maps as they are read, `[B,N,H,W]`; gradients flow."""
        large = interpolate(self.low, self.shape[-2:], mode="bilinear", align_corners=False)
        return large.scatter(1, self.best[:, None].long(), large.amax(1, keepdim=True) + self.lead)

    def float(self) -> Raised:
        """In float32."""
        return replace(self, low=self.low.float(), top=self.top.float())

    def flip(self, axis: int) -> Raised:
        """Mirrored along an axis, counted from the end."""
        return replace(self, low=self.low.flip(axis), best=self.best.flip(axis), top=self.top.flip(axis))

    def only(self, image: int, texts: Sequence[int]) -> Raised:
        """Some texts of one image, in this order, as those of a batch of one."""
        new = self.best.new_full((self.low.shape[1],), -1)
        new[list(texts)] = torch.arange(len(texts), dtype=new.dtype, device=new.device)
        here = slice(image, image + 1)
        return replace(self, low=self.low[here, list(texts)], best=new[self.best[here].long()], top=self.top[here])


def cosine_maps(dense: Tensor, text: Tensor) -> Tensor:
    """Cosines `[B,N,h,w]` of normalised features `[B,C,h,w]` with texts `[N,C]` or `[B,N,C]`, in float32."""
    with torch.autocast(dense.device.type, enabled=False):
        text = normalize(text.float(), dim=-1)
        if text.ndim == 2:
            text = text.expand(dense.shape[0], -1, -1)
        sim = torch.bmm(text, dense.float().flatten(2))
    return sim.view(*sim.shape[:2], *dense.shape[-2:])
