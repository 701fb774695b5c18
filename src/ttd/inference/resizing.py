"""Bilinear sampling of maps, one axis at a time, at any positions, used to combine views.

Positions are counted as in `torch.nn.functional.interpolate(align_corners=False)`: cell i has its centre at
i + 0.5, and beyond the outer centres a map goes on as it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Sampling:
    """Where along an axis T samples are taken from cells, and what each counts.

    Attributes:
        low, high: int64 `[T]`, the two neighbouring cells.
        fraction: float32 `[T]` in 0..1, the share of `high`.
        weight: float32 `[T]`, multiplies the sample.
    """

    low: Tensor
    high: Tensor
    fraction: Tensor
    weight: Tensor

    @classmethod
    def at(cls, positions: Tensor, cells: int, weight: Tensor | None = None) -> Sampling:
        """Sample `cells` cells at float64 positions `[T]` in 0..cells."""
        # Rounded, so that a cell's own centre is taken exactly.
        index = (positions - 0.5).round(decimals=6).clamp(0, cells - 1)
        low = index.floor()
        ones = torch.ones_like(index) if weight is None else weight
        return cls(
            low=low.long(),
            high=(low.long() + 1).clamp(max=cells - 1),
            fraction=(index - low).float(),
            weight=ones.float(),
        )

    def cell_weights(self, cells: int) -> Tensor:
        """How much each cell counts in the mean over all samples: float32 `[cells]`."""
        total = torch.zeros(cells, device=self.weight.device)
        total.index_add_(0, self.low, self.weight * (1 - self.fraction))
        total.index_add_(0, self.high, self.weight * self.fraction)
        return total / len(self.weight)

    def to(self, device: torch.device) -> Sampling:
        """Move to a device."""
        return Sampling(*(t.to(device) for t in (self.low, self.high, self.fraction, self.weight)))


def sample(maps: Tensor, rows: Sampling, columns: Sampling) -> Tensor:
    """Sample maps `[...,h,w]` at the grid of rows and columns: `[...,T_rows,T_columns]`."""
    down = _between(maps, rows) * rows.weight[:, None]
    # Turned, because whole rows are picked several times faster than single values.
    across = _between(down.mT.contiguous(), columns) * columns.weight[:, None]
    return across.mT.contiguous()


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of `[...,h,w]` to (H, W), corners not aligned, without antialiasing."""
    height, width = size
    rows = _stretch(maps.shape[-2], height, 0, height).to(maps.device)
    columns = _stretch(maps.shape[-1], width, 0, width).to(maps.device)
    return sample(maps, rows, columns)


def stretched(
    maps: Tensor | Callable[[int, int], Tensor],
    size: tuple[int, int],
    first: int,
    last: int,
    cells: tuple[int, int] | None = None,
) -> Tensor:
    """Rows first..last of maps `[n,h,w]` enlarged (or shrunk) bilinearly to `size`: `[n,last-first,W]`.

    Args:
        maps: a tensor, or what gives rows start..stop of it.
        size: (H, W) of the whole.
        first, last: the rows that are wanted.
        cells: (h, w), where `maps` is not a tensor.
    """
    if isinstance(maps, Tensor):
        whole = maps
        cells = (whole.shape[-2], whole.shape[-1])
        give: Callable[[int, int], Tensor] = lambda start, stop: whole[:, start:stop]  # noqa: E731
    else:
        assert cells is not None
        give = maps
    (height, width), (h, w) = size, cells
    if (first, last) == (0, height):
        part = give(0, h)
        return part if size == cells else interpolate(part[None], size, mode="bilinear", align_corners=False)[0]
    if h == height:
        part = give(first, last)
    else:
        places = (torch.arange(first, last, dtype=torch.float64) + 0.5) * (h / height) - 0.5
        places = places.clamp(0, h - 1)
        low = places.floor().long()
        high = (low + 1).clamp(max=h - 1)
        start = int(low[0])
        needed = give(start, int(high[-1]) + 1)
        device = needed.device
        low, high, share = (low - start).to(device), (high - start).to(device), (places - low).float().to(device)
        part = torch.lerp(needed.index_select(1, low), needed.index_select(1, high), share[:, None])
    if w == width:
        return part
    return interpolate(part[None], (part.shape[1], width), mode="bilinear", align_corners=False)[0]


def _between(maps: Tensor, rows: Sampling) -> Tensor:
    """The rows of `[...,h,w]` at the sampled positions: `[...,T,w]`."""
    low, high = maps.index_select(-2, rows.low), maps.index_select(-2, rows.high)
    return torch.lerp(low, high, rows.fraction[:, None])


def _stretch(cells: int, full: int, start: int, stop: int) -> Sampling:
    """The samples start..stop of `full` ones spread evenly over `cells` cells."""
    return Sampling.at((torch.arange(start, stop, dtype=torch.float64) + 0.5) * (cells / full), cells)
