"""Single tag bias as numbers: how unevenly the true words of a caption share its map and its score.

Definitions, ranges and what a perfect and a fully biased model get: docs/bias.md. All arrays are NumPy; n words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERED = 0.5  # of a word's region, above which the caption's mask covers the word

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lit:
    """What a caption's mask lights up, in pixels.

    Attributes:
        hits: of each word's region, those inside the mask: int64 [n].
        areas: of each word's region: int64 [n].
        mask: of the mask.
        inside: of the mask, those in any word's region.
        union: of all regions together.
        pixels: of the picture.
    """

    hits: NDArray[np.int64]
    areas: NDArray[np.int64]
    mask: int
    inside: int
    union: int
    pixels: int

    @property
    def coverage(self) -> Floats:
        """c: the share of each word's region that the mask lights up, 0..1; an empty region counts as 0."""
        return self.hits / np.maximum(self.areas, 1)

    @property
    def outside(self) -> float:
        """The share of the mask outside all regions; NaN of an empty mask."""
        return 1 - self.inside / self.mask if self.mask else float("nan")

    @property
    def outside_of_all(self) -> float:
        """The same for a mask that is the whole picture."""
        return 1 - self.union / self.pixels


def lit(mask: NDArray[np.bool_], regions: NDArray[np.bool_]) -> Lit:
    """Counts the pixels of a caption's mask [H,W] in the regions [n,H,W] of its words, which may overlap."""
    union = regions.any(0)
    return Lit(
        hits=(regions & mask).sum((1, 2), dtype=np.int64),
        areas=regions.sum((1, 2), dtype=np.int64),
        mask=int(mask.sum()),
        inside=int((mask & union).sum()),
        union=int(union.sum()),
        pixels=mask.size,
    )


def shares(values: Floats) -> Floats:
    """Values [n], none negative, as shares of their sum; NaN where all are 0."""
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), np.nan)


def entropy(portions: Floats) -> float:
    """Entropy of shares [n], n >= 2, over that of equal shares: 1 for equal shares, 0 where one word has all.

    NaN shares give NaN.
    """
    if np.isnan(portions).any():
        return float("nan")
    kept = portions[portions > 0]
    # `+ 0.0`: one word with all would else give -0.
    return float(-(kept * np.log(kept)).sum() / np.log(len(portions)) + 0.0)


def top_share(portions: Floats) -> float:
    """The largest of the shares [n]: 1/n for equal shares, 1 where one word has all."""
    return float(portions.max())


def bias(found: Lit, score: Floats) -> dict[str, float]:
    """The measures of one caption from its mask and its words' shares of the score [n]."""
    portions = shares(found.coverage)
    covered = found.coverage > COVERED
    return {
        "map entropy": entropy(portions),
        "map top share": top_share(portions),
        "covered": float(covered.mean()),
        "all covered": float(covered.all()),
        "outside": found.outside,
        "score entropy": entropy(score),
        "score top share": top_share(score),
        "even share": 1 / len(score),
    }
