"""Maps of windows, scales and mirrorings put together on the pixels of an image, band by band, in bounded memory.

Each window's map is enlarged bilinearly to its pixels (padding included, then cut off), added in its place, and the
sum divided by the number of windows there; the scales and mirrorings then count the same. All steps
are those of `torch.nn.functional.interpolate(align_corners=False)`. A scale that is seen in one piece goes to the
image's size in one step.

Shapes: B images, N maps, h x w cells of a window's map, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ttd.encoders.features import ImageFeatures, Raised
from ttd.inference.resizing import stretched
from ttd.inference.views import Axis, View

# Values of one band, whatever the image's size and the number of maps: 16 MB in float32.
BAND_VALUES = 4_000_000

Block = tuple[slice, slice, Tensor]  # maps, rows, and their values [n,rows,W]


@dataclass(frozen=True)
class _Window:
    """One window's maps `[B,N,h,w]`, mirrored back, and the pixels they cover."""

    maps: Tensor | Raised
    top: int
    left: int
    size: tuple[int, int]
    offset: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def of(cls, view: View, maps: Tensor | Raised) -> _Window:
        """The maps that a view's features gave."""
        features = view.features
        top, left = features.offset
        if view.columns.mirrored:
            maps, left = maps.flip(-1), features.padded[1] - features.size[1] - left
        return cls(maps, view.rows.start, view.columns.begin, features.size, (top, left), features.padded)

    def rows(self, image: int, maps: slice, first: int, last: int) -> Tensor:
        """The window's own pixel rows first..last, `[n,last-first,its width]`."""
        top, left = self.offset
        part = stretched(lambda *at: self.cells(image, maps, *at), self.padded, first + top, last + top, self.grid)
        return part[..., left : left + self.size[1]]

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return self.maps.shape[-2], self.maps.shape[-1]

    def cells(self, image: int, maps: slice, first: int, last: int) -> Tensor:
        """Rows first..last of some maps, `[n,last-first,w]`."""
        if isinstance(self.maps, Tensor):
            return self.maps[image, maps, first:last]
        return raised_rows(self.maps, image, maps, first, last)


@dataclass(frozen=True)
class _Piece:
    """All windows of one scale, mirrored or not.

    Attributes:
        windows: at least one.
        size: (H, W) of the resized image.
        covers: how many windows cover each row and each column.
        weight: what this piece counts in the mean.
        in_windows: whether a sliding window was asked for; else a map of the whole goes to any size in one step.
    """

    windows: list[_Window]
    size: tuple[int, int]
    covers: tuple[Tensor, Tensor]
    weight: float
    in_windows: bool = False

    @property
    def alone(self) -> bool:
        """Whether one map covers just the whole."""
        return not self.in_windows and self.windows[0].padded == self.size

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of what `rows` counts in: cells of the map where it is alone, else pixels."""
        return self.windows[0].grid if self.alone else self.size

    def rows(self, image: int, maps: slice, first: int, last: int) -> Tensor:
        """Rows first..last of the whole, `[n,last-first,cells]`."""
        if self.alone:
            return self.windows[0].cells(image, maps, first, last)
        count = len(range(*maps.indices(self.windows[0].maps.shape[1])))
        total = torch.zeros(count, last - first, self.size[1], device=self.windows[0].maps.device)
        for window in self.windows:
            start, stop = max(first, window.top), min(last, window.top + window.size[0])
            if start < stop:
                part = window.rows(image, maps, start - window.top, stop - window.top)
                total[:, start - first : stop - first, window.left : window.left + window.size[1]] += part
        down, across = self.covers
        return total.div_((down[first:last, None] * across).to(total))


class Stitched:
    """The maps `[B,N,h,w]` of every view of B images, to be read at any size."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = pieces

    @classmethod
    def ask(
        cls, views: Iterable[View], ask: Callable[[ImageFeatures], Tensor | Raised], in_windows: bool = True
    ) -> Stitched:
        """Ask every view for its maps; `in_windows` says whether they are those of a sliding window."""
        pieces: dict[tuple[int, int, bool], _Piece] = {}
        for view in views:
            key = (view.rows.full, view.columns.full, view.columns.mirrored)
            window = _Window.of(view, ask(view.features).float())
            if key in pieces:
                pieces[key].windows.append(window)
            else:
                covers = (_covers(view.rows), _covers(view.columns))
                pieces[key] = _Piece([window], key[:2], covers, view.weight, in_windows)
        return cls(list(pieces.values()))

    @classmethod
    def of(cls, maps: Tensor) -> Stitched:
        """Maps `[B,N,h,w]` that are put together already."""
        size = (maps.shape[-2], maps.shape[-1])
        window = _Window(maps.float(), 0, 0, size, (0, 0), size)
        return cls([_Piece([window], size, (torch.ones(size[0]), torch.ones(size[1])), 1.0)])

    def only(self, image: int, maps: list[int]) -> Stitched:
        """Some maps of one image, in this order, as those of a batch of one."""
        pieces = []
        for piece in self._pieces:
            windows = [
                replace(
                    one,
                    maps=one.maps.only(image, maps)
                    if isinstance(one.maps, Raised)
                    else one.maps[image : image + 1, maps],
                )
                for one in piece.windows
            ]
            pieces.append(replace(piece, windows=windows))
        return Stitched(pieces)

    @property
    def count(self) -> int:
        """N."""
        return int(self._pieces[0].windows[0].maps.shape[1])

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) at which a refiner gets maps: the finest scale's own cells, or a quarter of its pixels where it was
        seen in windows.
        """
        finest = max(self._pieces, key=lambda piece: piece.size)
        return finest.cells if finest.alone else (max(1, finest.size[0] // 4), max(1, finest.size[1] // 4))

    def read(self, image: int, size: tuple[int, int], maps: slice = slice(None), rows: slice = slice(None)) -> Tensor:
        """Some maps of one image at the size (H, W), some rows of them: float32 `[n,rows,W]`."""
        first, last, _ = rows.indices(size[0])
        total: Tensor | None = None
        for piece in self._pieces:
            part = stretched(lambda *at, piece=piece: piece.rows(image, maps, *at), size, first, last, piece.cells)
            part = part * piece.weight if piece.weight != 1 else part
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def blocks(self, image: int, size: tuple[int, int], values: int = BAND_VALUES) -> Iterator[Block]:
        """All of one image's maps at a size, in blocks of so many values: all rows of some maps, or parts of them."""
        height = size[0]
        tall, wide = (max(side, *(piece.cells[i] for piece in self._pieces)) for i, side in enumerate(size))
        some = max(1, min(self.count, values // (tall * wide)))
        rows = max(1, min(height, values // (some * wide)))
        for first in range(0, self.count, some):
            maps = slice(first, min(first + some, self.count))
            for top in range(0, height, rows):
                band = slice(top, min(top + rows, height))
                yield maps, band, self.read(image, size, maps, band)


def raised_rows(raised: Raised, image: int, maps: slice, first: int, last: int) -> Tensor:
    """Rows first..last of some of one image's maps at the size of the pixels, `[n,last-first,W]`."""
    low = raised.low[image, maps]
    size = (raised.shape[-2], raised.shape[-1])
    part = stretched(low, size, first, last)
    own = torch.arange(raised.shape[1], device=low.device)[maps, None, None]
    here = own == raised.best[image, first:last]
    return torch.where(here, raised.top[image, first:last] + raised.lead, part)


def _covers(axis: Axis) -> Tensor:
    """How many windows cover each pixel along an axis: float32 `[full]`."""
    count = torch.zeros(axis.full)
    for start in axis.starts:
        count[start : start + axis.length] += 1
    return count.flip(0) if axis.mirrored else count
