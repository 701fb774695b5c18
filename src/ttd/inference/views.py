"""Views of an image (scales, mirrored, sliding windows): encoded once, combined for each question.

A view is one window of one scale, mirrored or not. What is asked of each view (cosines, maps) is laid onto
one canvas, the grid of the finest scale over the whole image: windows are averaged where they overlap,
then all scales and mirrorings count the same. Padding is outside the canvas.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad
from tqdm import tqdm

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures
from ttd.errors import InputError
from ttd.images import prepare_pixels
from ttd.inference.device import inference
from ttd.inference.options import Options, filled_size, opencv_size, prepared_size
from ttd.inference.resizing import Sampling, sample
from ttd.scoring import mean_feature

# Windows that are encoded at once: at 448 pixels a ViT-B/16 needs about 60 MB for each.
WINDOWS_PER_BATCH = 8


@dataclass(frozen=True)
class Axis:
    """The place of a window along one axis of a resized image, in pixels.

    Attributes:
        full: length of the image.
        starts: where each of the windows along this axis begins.
        start, length: this window.
        mirrored: the image was mirrored along this axis before.
    """

    full: int
    starts: tuple[int, ...]
    start: int
    length: int
    mirrored: bool = False

    @property
    def begin(self) -> int:
        """Where the window begins in the image as it is; `start` counts in the mirrored one."""
        return self.full - self.start - self.length if self.mirrored else self.start

    def sampling(self, cells: int, targets: int, offset: int, padded: int) -> Sampling:
        """How `targets` canvas cells over the whole image sample the window's `cells` cells.

        Args:
            cells: of the window's map, which covers `padded` pixels.
            targets: cells of the canvas.
            offset: pixels of padding before the window.
            padded: the window's length with padding.
        """
        centres = (torch.arange(targets, dtype=torch.float64) + 0.5) * (self.full / targets)
        if self.mirrored:
            centres = self.full - centres
        covers = sum(((centres >= s) & (centres < s + self.length)).double() for s in self.starts)
        mine = (centres >= self.start) & (centres < self.start + self.length)
        positions = (centres - self.start + offset) * (cells / padded)
        return Sampling.at(positions, cells, mine / covers)


@dataclass(frozen=True)
class View:
    """One window of one scale, mirrored or not, of B images of one prepared size.

    Attributes:
        features: of the B windows.
        rows, columns: the window's place.
        weight: what this scale and mirroring counts; all of them together count 1.
    """

    features: ImageFeatures
    rows: Axis
    columns: Axis
    weight: float

    def canvas(self, maps: Tensor) -> tuple[int, int]:
        """The grid over the whole image with cells of the size that the window's maps `[...,h,w]` have."""
        sizes = []
        for axis, cells, padded in zip((self.rows, self.columns), maps.shape[-2:], self.features.padded, strict=True):
            sizes.append(max(1, -(-axis.full * cells // padded)))
        return sizes[0], sizes[1]

    def lay(self, maps: Tensor, canvas: tuple[int, int]) -> Tensor:
        """This view's share `[...,hc,wc]` of the canvas, from its maps `[...,h,w]`."""
        rows, columns = self._samplings(maps, canvas)
        return sample(maps, rows, columns) * self.weight

    def cell_weights(self, maps: Tensor, canvas: tuple[int, int]) -> Tensor:
        """What each of this view's cells counts in the mean over the canvas: `[h,w]`."""
        rows, columns = self._samplings(maps, canvas)
        down, across = rows.cell_weights(maps.shape[-2]), columns.cell_weights(maps.shape[-1])
        return down[:, None] * across[None, :] * self.weight

    def _samplings(self, maps: Tensor, canvas: tuple[int, int]) -> tuple[Sampling, Sampling]:
        features = self.features
        rows, columns = (
            axis.sampling(cells, targets, offset, padded).to(maps.device)
            for axis, cells, targets, offset, padded in zip(
                (self.rows, self.columns),
                maps.shape[-2:],
                canvas,
                features.offset,
                features.padded,
                strict=True,
            )
        )
        return rows, columns


@dataclass(frozen=True)
class EncodedImage:
    """An image whose views are encoded: pass it in place of an image, as often as you like.

    Attributes:
        image: upright RGB, at its own size.
        views: finest scale first.
        options: how it was looked at; questions start from these.
        encoder: the encoder that made it.
    """

    image: Image.Image
    views: Iterable[View]
    options: Options
    encoder: Encoder

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image.height, self.image.width

    @property
    def pooled(self) -> Tensor:
        """The encoder's ordinary image embedding `[C]`, of the first (finest) view."""
        return next(iter(self.views)).features.pooled[0]


class ViewsOnDemand:
    """Views that are encoded again whenever they are iterated, so that only a few are in memory at a time."""

    def __init__(
        self, encoder: Encoder, pixels: Sequence[Tensor], options: Options, images: Sequence[Image.Image] = ()
    ) -> None:
        self._encoder = encoder
        self._images = images
        self._pixels = pixels
        self._options = options

    def __iter__(self) -> Iterator[View]:
        return encode_views(self._encoder, self._pixels, self._options, self._images)


def prepare(image: Image.Image, encoder: Encoder, options: Options) -> list[Tensor]:
    """An image's normalised pixels `[3,H,W]` for each scale, the finest first."""
    scaled = []
    for size in _resized_sizes((image.height, image.width), encoder, options):
        opencv = options.resize.startswith("opencv")
        pixels = prepare_pixels(image, size, encoder.mean, encoder.std, opencv=opencv)
        full = _filled(size, encoder, options)
        if full != size:
            pixels = interpolate(pixels[None], full, mode="bilinear", align_corners=False)[0]
        scaled.append(pixels)
    return scaled


def _prepared_sizes(shape: tuple[int, int], encoder: Encoder, options: Options) -> list[tuple[int, int]]:
    """(H, W) of what is encoded of an image of (H, W) pixels in each scale, the finest first."""
    return [_filled(size, encoder, options) for size in _resized_sizes(shape, encoder, options)]


def _resized_sizes(shape: tuple[int, int], encoder: Encoder, options: Options) -> list[tuple[int, int]]:
    """(H, W) to which an image of (H, W) pixels is resized for each scale, the finest first."""
    size, scales = options.size or encoder.image_size, sorted(options.scales, reverse=True)
    if options.resize.startswith("opencv"):
        return [opencv_size(shape, size, scale) for scale in scales]
    seen = (1, 1) if options.resize == "square" else shape
    return [prepared_size(seen, size, encoder.patch_size, scale) for scale in scales]


def _filled(size: tuple[int, int], encoder: Encoder, options: Options) -> tuple[int, int]:
    """What a resized image is enlarged to; itself but with `resize="opencv-patches"`."""
    if options.resize != "opencv-patches":
        return size
    return filled_size(size, encoder.patch_size, _multiple(options.window or encoder.patch_size, encoder.patch_size))


def _places(shape: tuple[int, int], encoder: Encoder, options: Options) -> list[tuple[Axis, Axis]]:
    """Rows and columns of every window of a prepared image of (H, W) pixels, the mirrored ones last."""
    return [
        (rows, columns)
        for mirrored in ((False, True) if options.flip else (False,))
        for rows in _windows(shape[0], encoder, options)
        for columns in _windows(shape[1], encoder, options, mirrored)
    ]


@inference
def encoding_time(shape: tuple[int, int], encoder: Encoder, options: Options) -> tuple[list[int], float]:
    """What encoding an image takes, by arithmetic and one of its largest windows, which is encoded for it (twice).

    Args:
        shape: (H, W) of the image.
        encoder: in evaluation mode.
        options: how it would be looked at.

    Returns:
        its windows in each scale, the finest first, mirrored ones included; and about how many seconds they take.
    """
    every = [_places(size, encoder, options) for size in _prepared_sizes(shape, encoder, options)]
    if sum(map(len, every)) <= WINDOWS_PER_BATCH:
        return [len(places) for places in every], 0.0
    sides = [(rows.length, columns.length) for places in every for rows, columns in places]
    height, width = max(sides, key=math.prod)
    window = torch.zeros(1, 3, height, width, device=encoder.device)
    where = torch.tensor([[0, 0, height, width, 0]])
    spent = 0.0
    for _ in range(2):  # what is done once in a process does not count
        start = time.perf_counter()
        if encoder.together:
            found = encoder.encode_windows(window, where, window)
        else:
            found = _encoded(encoder, window, where, options.pad)
        found.dense.flatten()[0].item()  # waits for a GPU
        spent = time.perf_counter() - start
    return [len(places) for places in every], spent * sum(map(math.prod, sides)) / (height * width)


def encode_views(
    encoder: Encoder, pixels: Sequence[Tensor], options: Options, images: Sequence[Image.Image] = ()
) -> Iterator[View]:
    """Encode every view of B images; many windows are shown by a bar on the terminal, from the second second on.

    Args:
        encoder: in evaluation mode.
        pixels: `[B,3,H,W]` for each scale, the finest first; the images share all shapes.
        options: `flip`, `window`, `stride`.
        images: the B images before they were resized, for an encoder with `together`; none: they are not known.
    """
    weight = 1 / (len(pixels) * (2 if options.flip else 1))
    every = [_places((scaled.shape[-2], scaled.shape[-1]), encoder, options) for scaled in pixels]
    total = sum(map(len, every))
    hidden = True if total <= WINDOWS_PER_BATCH else None
    with tqdm(total=total, unit="window", delay=1, leave=False, disable=hidden, file=sys.stderr) as bar:
        for scaled, places in zip(pixels, every, strict=True):
            if encoder.together:
                yield from _whole_views(encoder, scaled, places, weight, images)
                bar.update(len(places))
                continue
            batch = scaled.shape[0]
            step = max(1, WINDOWS_PER_BATCH // batch)
            for first in range(0, len(places), step):
                chunk = places[first : first + step]
                crops = torch.cat([_crop(scaled, *place) for place in chunk])
                where = torch.tensor([_place(*place) for place in chunk for _ in range(batch)])
                features = _encoded(encoder, crops.to(encoder.device), where, options.pad)
                bar.update(len(chunk))
                for i, (rows, columns) in enumerate(chunk):
                    yield View(features.select(slice(i * batch, (i + 1) * batch)), rows, columns, weight)


def _encoded(encoder: Encoder, crops: Tensor, where: Tensor, multiple: int | None) -> ImageFeatures:
    """The features of windows `[B,3,H,W]` of any size, over all of their pixels."""
    size = whole = (crops.shape[-2], crops.shape[-1])
    offset, patch = (0, 0), encoder.patch_size
    if multiple is not None and (size[0] % multiple or size[1] % multiple):
        down, across = (-side % multiple for side in size)
        offset = (down // 2, across // 2)
        crops = pad(crops, (offset[1], across - offset[1], offset[0], down - offset[0]))
        whole = (crops.shape[-2], crops.shape[-1])
    elif encoder.pads:
        return encoder.encode_windows(crops, where)
    if not encoder.pads and (whole[0] % patch or whole[1] % patch):
        if min(whole) < patch:
            raise InputError(
                f"a window of {size[1]} x {size[0]} pixels does not fill a patch of {patch}: take a larger size"
            )
        crops = crops[..., : whole[0] // patch * patch, : whole[1] // patch * patch]
    found = encoder.encode_windows(crops, where)
    if encoder.pads:  # beyond ours
        top, left = (ours + its for ours, its in zip(offset, found.offset, strict=True))
        return replace(found, size=size, offset=(top, left))
    return replace(found, size=size, offset=offset, padded=whole)


def _whole_views(
    encoder: Encoder,
    scaled: Tensor,
    places: Sequence[tuple[Axis, Axis]],
    weight: float,
    images: Sequence[Image.Image],
) -> Iterator[View]:
    """One view of each mirroring, of all windows of an image together."""
    for mirrored in dict.fromkeys(columns.mirrored for _, columns in places):
        own = [place for place in places if place[1].mirrored == mirrored]
        where = torch.tensor([_place(*place) for place in own])
        features = []
        for number, image in enumerate(torch.split(scaled, 1)):
            crops = torch.cat([_crop(image, *place) for place in own]).to(encoder.device)
            whole = (image.flip(-1) if mirrored else image).to(encoder.device)
            original = torch.from_numpy(np.array(images[number])) if images else None
            if original is not None and mirrored:
                original = original.flip(1)
            features.append(encoder.encode_windows(crops, where, whole, original))
        full = (scaled.shape[-2], scaled.shape[-1])
        rows, columns = (Axis(n, (0,), 0, n, flip) for n, flip in zip(full, (False, mirrored), strict=True))
        yield View(ImageFeatures.joined(features), rows, columns, weight)


def average(views: Iterable[View], ask: Callable[[ImageFeatures], Tensor]) -> Tensor:
    """Ask every view for maps `[B,N,h,w]` and average them on the canvas of the finest: `[B,N,hc,wc]`."""
    total: Tensor | None = None
    canvas = (0, 0)
    for view in views:
        maps = ask(view.features)
        if total is None:
            canvas = view.canvas(maps)
            total = view.lay(maps, canvas)
        else:
            total += view.lay(maps, canvas)
    assert total is not None
    return total


def average_feature(views: Iterable[View]) -> Tensor:
    """The mean of the dense features over the canvas: `[B,C]`, not normalised; see `mean_feature`."""
    total: Tensor | None = None
    canvas = (0, 0)
    for view in views:
        dense = view.features.dense
        canvas = canvas if total is not None else view.canvas(dense)
        weight = view.cell_weights(dense, canvas)
        share = mean_feature(dense, weight) * weight.sum()
        total = share if total is None else total + share
    assert total is not None
    return total


def _windows(full: int, encoder: Encoder, options: Options, mirrored: bool = False) -> list[Axis]:
    """The windows along one axis: every `stride` pixels, the last one pushed back to end with the image."""
    if options.window is None:
        return [Axis(full, (0,), 0, full, mirrored)]
    window, stride = options.window, options.stride or max(1, options.window // 2)
    if options.resize != "opencv":
        window, stride = (_multiple(side, encoder.patch_size) for side in (window, stride))
    window = min(full, window)
    stride = min(window, stride)
    count = -(-max(full - window, 0) // stride) + 1
    starts = tuple(min(i * stride, full - window) for i in range(count))
    return [Axis(full, starts, start, window, mirrored) for start in starts]


def _multiple(pixels: int, patch: int) -> int:
    return max(1, round(pixels / patch)) * patch


def _place(rows: Axis, columns: Axis) -> tuple[int, int, int, int, int]:
    """A window's top and left in the image as it is, the image's height and width, and whether it is mirrored."""
    return rows.start, columns.begin, rows.full, columns.full, int(columns.mirrored)


def _crop(pixels: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """The window of `[B,3,H,W]`, from the mirrored image where asked."""
    window = pixels[..., rows.start : rows.start + rows.length, columns.begin : columns.begin + columns.length]
    return window.flip(-1) if columns.mirrored else window
