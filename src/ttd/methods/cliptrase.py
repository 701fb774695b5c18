"""CLIPtrase (Shao et al., ECCV 2024): patches clustered by how they correlate; each cluster gets one class by vote.

Shapes: B images, h x w patches, L = 1 + h*w tokens (the class token first), D width, N texts, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ttd.encoders.features import Raised
from ttd.encoders.last_block import self_self_attention, split_heads
from ttd.encoders.methods import Context, Method, Patches, enlarged_positions
from ttd.errors import missing_extra
from ttd.inference.resizing import stretched
from ttd.registry import METHODS

# Published for 224 and 336 pixels: number of patches, DBSCAN's distance, and how many make a cluster.
PUBLISHED = ((14 * 14, 0.7, 3), (21 * 21, 1.1, 7))
ENLARGED, MEDIAN = 4, 7  # clusters' maps are enlarged and smoothed by a median
BAND_VALUES = 1_000_000  # of all texts on some rows of pixels at a time
_LEAD = 1e-4  # by which the class of a cluster wins


def patches(blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context) -> Patches:
    """The last block's tokens by three self-self attentions, residual and MLP kept.

    The extra "units", `[B,L,3*D]`, holds q, k and v of the block before, side by side, so that the product of two
    tokens is the mean of their cosines over all heads.
    """
    block, before = blocks[-1], blocks[max(0, len(blocks) - 2)]
    x = hidden_states[-1]
    x = x + self_self_attention(block.self_attn, block.layer_norm1(x), grid, "qq+kk+vv")
    x = x + block.mlp(block.layer_norm2(x))
    z = before.layer_norm1(hidden_states[max(0, len(blocks) - 2)])
    attention = before.self_attn
    units = [
        normalize(split_heads(project(z), attention.num_heads), dim=-1).transpose(1, 2).flatten(2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    ]
    scale = (3 * attention.num_heads) ** -0.5
    return Patches(x[:, 1:], grid, class_token=x[:, 0], extras={"units": torch.cat(units, -1) * scale})


def correlation(units: Tensor) -> Tensor:
    """How much more two patches correlate than the second does with the class token: `[L,3*D]` -> `[h*w,h*w]`."""
    found: Tensor = (units[1:] @ units[1:].T - units[:1] @ units[1:].T).clamp_min(0)
    return found


def weighed_by_the_whole(dense: Tensor, pooled: Tensor, text: Tensor, context: Context) -> Tensor:
    """Cosines `[B,N,h,w]` times those of the method's class token, of which the largest counts 1.

    The authors do so for VOC without a background.
    """
    assert context.class_token is not None
    text = text if text.ndim == 3 else text.expand(len(dense), -1, -1)
    whole = torch.einsum("bc,bnc->bn", context.class_token, text)
    whole = whole / whole.abs().amax(1, keepdim=True).clamp_min(1e-12)
    return torch.einsum("bchw,bnc->bnhw", dense, text) * whole[..., None, None]


@dataclass(frozen=True)
class Vote:
    """`finish`: in each cluster the class that most of its pixels have becomes the highest on all of them.

    Attributes:
        eps: below this Euclidean distance two rows of `correlation` are neighbours (DBSCAN).
        fewest: neighbours, with itself, that make a patch a cluster's core. None: the published ones, by the number of
            patches.
    """

    eps: float | None = None
    fewest: int | None = None

    def __call__(self, logits: Tensor, context: Context) -> Raised:
        """`[B,N,h,w]` -> `[B,N,H,W]` at the window's size; some rows of all texts are there at a time."""
        height, width = size = (context.pixels.shape[-2], context.pixels.shape[-1])
        number, count, *grid = logits.shape
        # What stays is there before what goes, so that the memory between is free again.
        best = torch.empty(number, *size, dtype=torch.int32, device=logits.device)
        top = torch.empty(number, *size, device=logits.device)
        some = max(1, BAND_VALUES // (count * width))
        bands = [slice(first, min(first + some, height)) for first in range(0, height, some)]
        with torch.no_grad():
            classes = torch.arange(count) if context.classes is None else context.classes
            classes = classes.to(logits.device)
            for image, units in enumerate(context.extras["units"]):
                for rows in bands:
                    large = stretched(logits[image], size, rows.start, rows.stop)
                    top[image, rows], best[image, rows] = large.max(0)
                cluster = self.clusters(correlation(units.float()), (grid[0], grid[1]), size)
                chosen = voted(classes[best[image].long()], cluster)
                best[image] = chosen
                for rows in bands if context.classes is not None else ():
                    large = stretched(logits[image], size, rows.start, rows.stop)
                    best[image, rows] = large.masked_fill_(classes[:, None, None] != chosen[rows], -torch.inf).argmax(0)
        return Raised(logits, best, top, _LEAD)

    def clusters(self, affinity: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        """The cluster of each pixel, int64 `[H,W]`, from `affinity [h*w,h*w]`; None where there are no clusters.

        Every pixel gets one, also where DBSCAN gave its patch none.

        Raises:
            MissingExtra: scikit-learn is not installed.
        """
        labels = self.dbscan(affinity)
        if labels.max() < 0:
            return None
        maps = torch.stack([affinity[torch.from_numpy(labels == one)].mean(0) for one in range(labels.max() + 1)])
        smooth = medians(maps.view(-1, *grid))
        return interpolate(smooth[None], size, mode="bilinear", align_corners=False)[0].argmax(0)

    def dbscan(self, affinity: Tensor) -> NDArray[np.int64]:
        """The cluster of each row of `affinity`, -1 for none: `[h*w]`."""
        try:
            from sklearn.cluster import DBSCAN
        except ImportError as error:
            raise missing_extra("cliptrase", "the method cliptrase needs scikit-learn") from error
        _, eps, fewest = min(PUBLISHED, key=lambda one: abs(one[0] - len(affinity)))
        found = DBSCAN(eps=self.eps or eps, min_samples=self.fewest or fewest).fit_predict(affinity.cpu().numpy())
        labels: NDArray[np.int64] = found
        return labels


def medians(maps: Tensor) -> Tensor:
    """Clusters' maps `[K,h,w]`, enlarged four times and smoothed by a median: `[K,4h,4w]`."""
    from scipy.ndimage import median_filter

    large = interpolate(maps[None], scale_factor=ENLARGED, mode="bilinear", align_corners=False)[0]
    return torch.from_numpy(median_filter(large.cpu().numpy(), size=(1, MEDIAN, MEDIAN))).to(maps.device)


def voted(found: Tensor, cluster: Tensor | None) -> Tensor:
    """Each cluster's most frequent class, `[H,W]`, the lowest of equally frequent ones; `found` without clusters."""
    if cluster is None:
        return found
    count = int(found.max()) + 1
    votes = torch.bincount((cluster * count + found).flatten(), minlength=(int(cluster.max()) + 1) * count)
    winner: Tensor = votes.view(-1, count).argmax(1)[cluster]
    return winner


for _name, _similarity, _use in (
    ("cliptrase", None, ""),
    ("cliptrase-voc20", weighed_by_the_whole, ", as for VOC without a background"),
):
    METHODS.add(
        _name,
        Method(
            _name,
            f"Shao et al., ECCV 2024{_use}",
            patches=patches,
            protocol="cliptrase",
            similarity=_similarity,
            finish=Vote(),
            positions=enlarged_positions,
            every_state=True,
            package="sklearn",
        ),
        __name__,
    )
