"""SAM-HQ asked with points, as CLIP Surgery does: where a text's map is highest, and where it is lowest.

All points of a text are one prompt; of the three masks that SAM-HQ draws for it the one that it scores highest counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ttd.refine.base import register_refiner, working_image
from ttd.refine.sam import SAMRefiner


@register_refiner("sam-points")
class SAMPointsRefiner(SAMRefiner):
    """Refines maps by one prompt of points for each."""

    def refine(self, image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
        """See `Refiner`: masks of 0 and 1 at the working size; a pixel that several claim goes to the highest score.

        A map that reaches the background's threshold nowhere stays empty. Without a background, pixels that SAM-HQ
        gives to nobody keep their label.
        """
        from ttd.inference.masks import pixel_labels

        small = working_image(image)
        size = (small.height, small.width)
        best, owner = np.full(size, -np.inf, np.float32), np.full(size, -1, np.int64)
        for number, drawn, score in self._drawn(small, maps, background):
            higher = drawn & (score > best)
            best[higher], owner[higher] = score, number
        if background is None:
            owner = np.where(owner < 0, pixel_labels(maps, size, None), owner)
        return torch.from_numpy(owner == np.arange(len(maps))[:, None, None]).float()

    def refine_each(self, image: Image.Image, maps: Tensor, background: float) -> Tensor:
        """See `Refiner`; the image is encoded once for all maps."""
        small = working_image(image)
        masks = torch.zeros(len(maps), small.height, small.width)
        for number, drawn, _ in self._drawn(small, maps, background):
            masks[number] = torch.from_numpy(drawn)
        return masks

    def _drawn(
        self, image: Image.Image, maps: Tensor, background: float | None
    ) -> Iterator[tuple[int, NDArray[np.bool_], float]]:
        """For each map that says where something is: its number, what SAM-HQ draws, and how it scores that."""
        from ttd.methods.clip_surgery import points

        embedding = self.encode(image)
        for number, one in enumerate(maps.float().cpu()):
            if background is not None and float(one.max()) < background:
                continue
            # Points are of similarities, of which p is a sigmoid.
            spots, labels = points(torch.logit(one, eps=1e-6), embedding.size)
            if len(spots):
                answer = self.predict(embedding, spots[None].numpy(), labels[None].numpy(), multimask=True)
                yield number, answer.masks[0], float(answer.scores[0])
