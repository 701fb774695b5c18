"""PAMR, the pixel-adaptive mask refinement of 1-stage-wseg that TCL uses: masks follow the image's edges.

Every pixel has P = 8 * len(dilations) neighbours. Its new mask value is their average, weighted by how much
they look like it, and this is repeated. One round is therefore a product of a sparse matrix [HW, HW] with P
entries per row and the masks [HW, C]. At the border several neighbours are the same pixel (replicate
padding): those entries of the matrix add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ttd.errors import InputError
from ttd.refine.base import Refiner, register_refiner

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder
    from ttd.inference.options import Options

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10


class Blocks(NamedTuple):
    """How much `pamr` holds at once, which changes its time and memory but not what it computes.

    49 rows of a 112-pixel-wide grid with 64 channels are 1.4 MB, 3 colours of 2048 pixels' neighbours 1.2 MB:
    they about fit a CPU's second-level cache. Long products keep the threads from meeting at every step.

    Attributes:
        channels: of the masks in a product.
        pixels: rows of the matrix in a product.
        compared: pixels whose neighbours' colours are compared in one step.
        kept: bytes of the matrix that are kept for the next round, or the masks' size where that is more.
    """

    channels: int = 64
    pixels: int = 32768
    compared: int = 2048
    kept: int = 128 * 2**20


BLOCKS = Blocks()


@register_refiner("pamr")
@dataclass(frozen=True)
class PAMRRefiner(Refiner):
    """PAMR on a quarter of the resolution at which the encoder sees the image, as in TCL.

    Attributes:
        size: the shorter side of the image as the encoder sees it, in pixels.
        mean, std: the encoder's statistics of pixels.
        steps, dilations: see `pamr`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    steps: int = ITERATIONS
    dilations: Sequence[int] = DILATIONS

    @classmethod
    def create(cls, encoder: Encoder, options: Options) -> PAMRRefiner:
        """See `Refiner`."""
        size = options.size or encoder.image_size
        return cls(size, encoder.mean, encoder.std, options.pamr_steps, options.pamr_dilations)

    def refine(self, image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
        """See `Refiner`; the maps are averages of their neighbours, so no threshold is needed."""
        from ttd.images import prepare_pixels
        from ttd.inference.options import prepared_size
        from ttd.inference.resizing import resize

        height, width = prepared_size((image.height, image.width), self.size, 4)
        grid = (height // 4, width // 4)
        small = prepare_pixels(image, grid, self.mean, self.std).to(maps.device)
        return pamr(small[None], resize(maps, grid)[None], self.steps, self.dilations)[0]

    def refine_each(self, image: Image.Image, maps: Tensor, background: float) -> Tensor:
        """See `Refiner`: no map knows of the others."""
        return self.refine(image, maps, background)


@dataclass(frozen=True)
class _Rows:
    """Rows [first, last) of the sparse matrix, one per pixel: its neighbours and their weights, [n, P]."""

    first: int
    last: int
    neighbours: Tensor  # int32
    weights: Tensor  # float32, every row sums to 1


@torch.no_grad()
def pamr(
    images: Tensor,
    masks: Tensor,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
    blocks: Blocks = BLOCKS,
) -> Tensor:
    """Refines soft masks with the images they belong to.

    The weight of neighbour j for pixel i is the softmax over the P neighbours of the mean over channels of
    -|x_i - x_j| / (1e-8 + 0.1 * std_i), where std_i is the unbiased deviation over the 3x3 windows of all
    dilations. A round costs B * H * W * P * C multiplications. Beside the result, memory holds two blocks of
    at most 64 channels and the matrix (8 * P bytes per pixel) of one image; what of the matrix exceeds both
    the masks' size and 128 MiB is computed again in every round. No gradients.

    Args:
        images: [B,3,H,W] in any linear scale (0..1, 0..255, normalised), finite. The scale cancels out.
        masks: [B,C,h,w], finite; resized to H x W first (bilinear, corners aligned).
        iterations: number of rounds, 0 or more; 10 in TCL.
        dilations: distances of the 3x3 neighbourhoods in pixels; those of TCL by default.
        blocks: what is held at once; the numbers above are the default's.

    Returns:
        [B,C,H,W] on the masks' device, in their dtype (float32 for integer and boolean masks; the computation
        is always in float32). Values are convex combinations of the resized masks' values.

    Raises:
        InputError: shapes that do not fit, NaN or infinite values, no dilation or one below 1.
    """
    _check(images, masks, iterations, dilations)
    size = (images.shape[2], images.shape[3])
    dtype = masks.dtype if masks.is_floating_point() else torch.float32
    out = masks.new_empty((*masks.shape[:2], *size), dtype=dtype)
    for image, mask, target in zip(images, masks, out, strict=True):
        _refine(image.to(masks.device, torch.float32), mask, target, iterations, tuple(dilations), blocks)
    return out


def _check(images: Tensor, masks: Tensor, iterations: int, dilations: Sequence[int]) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"PAMR needs images of shape [B,3,H,W], not {list(images.shape)}.")
    if masks.ndim != 4 or masks.shape[0] != images.shape[0]:
        raise InputError(
            f"PAMR needs masks of shape [B,C,h,w] for its {images.shape[0]} images, not {list(masks.shape)}."
        )
    if 0 in images.shape[2:] or 0 in masks.shape[2:]:
        raise InputError("PAMR needs images and masks of at least one pixel.")
    if iterations < 0 or len(dilations) == 0 or min(dilations) < 1:
        raise InputError("PAMR needs 0 or more iterations and at least one dilation, each 1 or more.")
    for name, values in (("images", images), ("masks", masks)):
        if not all(bool(torch.isfinite(part.float()).all()) for part in values):
            raise InputError(f"The {name} given to PAMR contain NaN or infinite values: replace them first.")


def _refine(
    image: Tensor, mask: Tensor, out: Tensor, iterations: int, dilations: tuple[int, ...], blocks: Blocks
) -> None:
    """One image [3,H,W] and its masks [C,h,w]; the result is written into out [C,H,W]."""
    height, width = image.shape[1:]
    blocks = blocks._replace(kept=max(blocks.kept, 4 * len(mask) * height * width))
    kept: list[_Rows] = []
    for start in range(0, len(mask), blocks.channels):
        block = mask[start : start + blocks.channels].float()
        if block.shape[1:] != image.shape[1:]:
            block = F.interpolate(block[None], (height, width), mode="bilinear", align_corners=True)[0]
        # [HW, C]: a neighbour is one contiguous row. Copied, because one channel's transpose can be a view of
        # the caller's masks, and the rounds write here.
        values = torch.empty((height * width, len(block)), device=mask.device)
        values.copy_(block.flatten(1).t())
        del block
        spare = torch.empty_like(values)
        for _ in range(iterations):
            for rows in _matrix(image, dilations, kept, blocks):
                spare[rows.first : rows.last] = F.embedding_bag(
                    rows.neighbours, values, mode="sum", per_sample_weights=rows.weights
                )
            values, spare = spare, values
        out[start : start + blocks.channels] = values.t().view(-1, height, width)


def _matrix(image: Tensor, dilations: tuple[int, ...], kept: list[_Rows], blocks: Blocks) -> Iterator[_Rows]:
    """Yields the whole matrix from its top; what `blocks.kept` bytes can hold of it is kept for the next round."""
    height, width = image.shape[1:]
    yield from list(kept)
    done = kept[-1].last // width if kept else 0
    step = max(1, blocks.pixels // width)
    for top in range(done, height, step):
        bottom = min(top + step, height)
        neighbours = _neighbours(height, width, top, bottom, dilations, image.device)
        weights = _affinity(image, top * width, neighbours, blocks.compared)
        rows = _Rows(top * width, bottom * width, neighbours, weights)
        if 8 * rows.last * neighbours.shape[1] <= blocks.kept:
            kept.append(rows)
        yield rows


def _neighbours(
    height: int, width: int, top: int, bottom: int, dilations: tuple[int, ...], device: torch.device
) -> Tensor:
    """Pixel numbers y * width + x, [n, P], of the neighbours of the pixels in rows top to bottom."""
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    steps = [(dy * d, dx * d) for d in dilations for dy, dx in around]
    offsets = torch.tensor(steps, dtype=torch.int32, device=device)
    y = torch.arange(top, bottom, dtype=torch.int32, device=device)[:, None] + offsets[:, 0]  # [rows, P]
    x = torch.arange(width, dtype=torch.int32, device=device)[:, None] + offsets[:, 1]  # [W, P]
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    return (y[:, None] * width + x[None]).flatten(0, 1)


def _affinity(image: Tensor, first: int, neighbours: Tensor, compared: int) -> Tensor:
    """Weights [n, P] of the neighbours [n, P] of the pixels from number `first` on."""
    colours, weights = image.flatten(1), torch.empty(neighbours.shape, device=image.device)
    windows = neighbours.shape[1] // 8  # each 3x3 window holds 8 neighbours and the centre
    for start in range(0, len(neighbours), compared):
        part = neighbours[start : start + compared]
        centre = colours[:, first + start : first + start + len(part), None]
        around = colours.index_select(1, part.flatten()).view(-1, *part.shape)  # [3, n, P]
        mean = (around.sum(2, keepdim=True) + windows * centre) / (9 * windows)
        squares = (around - mean).square_().sum(2, keepdim=True) + windows * (centre - mean) ** 2
        scale = 1e-8 + 0.1 * (squares / (9 * windows - 1)).sqrt()
        logits = around.sub_(centre).abs_().div_(scale).mean(0).neg_()
        weights[start : start + len(part)] = logits.softmax(1)
    return weights
