"""From maps to values, masks and labels of an image's pixels.

Maps come in blocks (`ttd.inference.stitching.Block`), so an image of 178 megapixels never holds one value per class and
pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttd.inference.stitching import Block, Stitched


def all_values(blocks: Iterable[Block], count: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """The values of N maps at the size (H, W): float32 `[N,H,W]`."""
    values = np.empty((count, *size), dtype=np.float32)
    for maps, rows, block in blocks:
        values[maps, rows] = block.cpu().numpy()
    return values


def all_masks(
    blocks: Iterable[Block], count: int, size: tuple[int, int], value: Callable[[Tensor], Tensor] | None, cut: float
) -> NDArray[np.bool_]:
    """Where each of N maps, or what `value` makes of it, reaches a threshold: bool `[N,H,W]`."""
    masks = np.empty((count, *size), dtype=np.bool_)
    for maps, rows, block in blocks:
        masks[maps, rows] = ((block if value is None else value(block)) >= cut).cpu().numpy()
    return masks


def pixel_values(maps: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Maps `[N,h,w]` at the size (H, W): float32 `[N,H,W]`."""
    return all_values(Stitched.of(maps[None]).blocks(0, size), len(maps), size)


def pixel_labels(maps: Tensor, size: tuple[int, int], threshold: float | None) -> NDArray[np.uint16]:
    """The number of each pixel's highest map `[N,h,w]`: uint16 `[H,W]`; equal maps: the first.

    With a threshold 0 is background, where no map reaches it, and map n is number n + 1.
    """
    rule = LabelRule(tuple(range(len(maps))), threshold=threshold)
    labels = rule.labels(lambda: Stitched.of(maps[None]).blocks(0, size), size)
    return (labels if threshold is None else labels + 1).astype(np.uint16)


@dataclass(frozen=True)
class LabelRule:
    """How the logits of prompts become the label of a pixel: the class of the highest one, or none.

    Attributes:
        classes: class of each prompt, ascending from 0.
        value: makes of the highest logit what `threshold` cuts; None: the logit itself.
        threshold: below it a pixel has no class; None: every pixel has one.
        logit_scale: the softmax over all prompts is of logits times this; only with `prob_threshold`.
        prob_threshold: below it, the probability of the best prompt, a pixel has no class.
        area_threshold: a class that wins at most this share of the pixels that classes win has none of them: they go to
            the next best.
        kept: a class that `area_threshold` never touches and whose pixels it does not count: the background's words.
    """

    classes: tuple[int, ...]
    value: Callable[[Tensor], Tensor] | None = None
    threshold: float | None = None
    logit_scale: float = 1.0
    prob_threshold: float | None = None
    area_threshold: float | None = None
    kept: int | None = None

    def labels(self, blocks: Callable[[], Iterable[Block]], size: tuple[int, int]) -> NDArray[np.int64]:
        """The class of each pixel, -1 for none: int64 `[H,W]`; of equal ones the first.

        Args:
            blocks: gives all prompts' maps, asked once, or twice where a small class loses its pixels.
            size: (H, W).
        """
        best, which, total = self._winners(blocks(), size, None)
        if self.area_threshold is not None:
            votes = torch.bincount(which.flatten(), minlength=max(self.classes) + 1)
            counted = votes.clone()
            if self.kept is not None:
                counted[self.kept] = 0
            small = counted <= self.area_threshold * counted.sum()
            if self.kept is not None:
                small[self.kept] = False
            if bool(small.all()):
                which = torch.full_like(which, -1)
            elif bool((small & (votes > 0)).any()):
                best, which, total = self._winners(blocks(), size, small)
        if self.threshold is not None:
            value = best if self.value is None else self.value(best)
            which = torch.where(value >= self.threshold, which, -1)
        if self.prob_threshold is not None and total is not None:
            probability = (self.logit_scale * best - total).exp()
            which = torch.where(probability >= self.prob_threshold, which, -1)
        return which.numpy()

    def _winners(
        self, blocks: Iterable[Block], size: tuple[int, int], without: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The highest logit of each pixel, its class, and the log of the softmax's denominator; each `[H,W]`.

        Classes that are True in `without` cannot win, but stay in the denominator.
        """
        best = torch.full(size, -torch.inf)
        which = torch.zeros(size, dtype=torch.int64)
        total = None if self.prob_threshold is None else torch.full(size, -torch.inf)
        classes = torch.tensor(self.classes)
        for maps, rows, block in blocks:
            of = classes[maps]
            if total is not None:
                part = (self.logit_scale * block).logsumexp(0).cpu()
                total[rows] = torch.logaddexp(total[rows], part)
            if without is not None:
                there = ~without[of]
                if not bool(there.any()):
                    continue
                block, of = block[there.to(block.device)], of[there]
            highest, number = (one.cpu() for one in block.max(0))
            higher = highest > best[rows]  # of equal ones the first stays
            which[rows] = torch.where(higher, of[number], which[rows])
            best[rows] = torch.where(higher, highest, best[rows])
        return best, which, total


def normed_blocks(
    blocks: Callable[[], Iterator[Block]], range_of: Callable[[], Iterable[Block]], count: int
) -> Callable[[], Iterator[Block]]:
    """The same N maps, each by itself from its lowest to its highest value (`ttd.maps.norm`) in `range_of`."""
    low, high = torch.full((count,), torch.inf), torch.full((count,), -torch.inf)
    for maps, _, block in range_of():
        low[maps] = low[maps].minimum(block.amin((1, 2)).cpu())
        high[maps] = high[maps].maximum(block.amax((1, 2)).cpu())
    spread = high - low + 1e-6

    def scaled() -> Iterator[Block]:
        for maps, rows, block in blocks():
            start, by = (of[maps, None, None].to(block.device) for of in (low, spread))
            yield maps, rows, (block - start) / by

    return scaled


def class_maps(maps: Tensor, classes: tuple[int, ...]) -> Tensor:
    """The highest map of each class: `[N,h,w]` -> `[K,h,w]`."""
    if len(set(classes)) == len(classes):
        return maps
    found = maps.new_full((max(classes) + 1, *maps.shape[1:]), -torch.inf)
    index = torch.tensor(classes, device=maps.device)[:, None, None].expand_as(maps)
    return found.scatter_reduce(0, index, maps, "amax")


def nearest(labels: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """Enlarge or shrink a label map to (H, W); every pixel takes the cell that contains its centre."""
    rows, columns = (
        (np.arange(target) * 2 + 1) * cells // (2 * target) for target, cells in zip(size, labels.shape, strict=True)
    )
    enlarged: NDArray[np.uint16] = labels[rows[:, None], columns[None, :]]
    return enlarged
