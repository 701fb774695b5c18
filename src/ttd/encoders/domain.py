"""What a small model cannot know: whether an image looks like those that it learned from.

The card `ttd.json` of such a model names a file with a linear rule over statistics of pixels: quantiles of how much
neighbours differ, in brightness and two colour channels at four scales, and of brightness and saturation. They tell
drawings from photographs whatever is in the image. `python -m tools.domain` fits and measures the rule of `mini`.
Imports no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttd.errors import ModelError
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.schema import each, fields, number, text

SIDE = 128  # pixels to which an image is resized, whatever its shape
_SCALES = 4
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
STATISTICS = 3 * (_SCALES * len(_QUANTILES) + 2) + 3 + 5
_RULE = fields({"name": text, "remedy": text, "weights": each(number), "bias": number})


@dataclass(frozen=True)
class Domain:
    """The images that a model learned from.

    Attributes:
        name: what they are, as a plural: "drawn scenes".
        remedy: a sentence about what to do with other images.
        weights: of `statistics`.
        bias: added to their sum; above 0 the image is another kind.
    """

    name: str
    remedy: str
    weights: tuple[float, ...]
    bias: float

    def distance(self, image: Image.Image) -> float:
        """Above 0 where the image (RGB) does not look like those, the more the surer."""
        return float(statistics(image) @ np.asarray(self.weights) + self.bias)

    def notice(self, image: Image.Image) -> str | None:
        """A sentence where the image does not look like those that the model learned from; None where it does."""
        if self.distance(image) <= 0:
            return None
        return (
            f"This model learned from {self.name} only, and this image looks like something else: words and maps mean "
            f"little. {self.remedy}"
        )


def statistics(image: Image.Image) -> NDArray[np.float64]:
    """The statistics of an image (RGB, any size), float64 `[STATISTICS]`."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    bright = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    found: list[float] = []
    for channel in (bright, pixels[..., 2] - bright, pixels[..., 0] - bright):
        scaled = channel
        for _ in range(_SCALES):
            steps = np.concatenate([np.abs(np.diff(scaled, axis=axis)).ravel() for axis in (0, 1)])
            found += np.log(np.quantile(steps, _QUANTILES) + 1e-3).tolist()
            scaled = scaled.reshape(scaled.shape[0] // 2, 2, scaled.shape[1] // 2, 2).mean(axis=(1, 3))
        found += [float(scaled.std()), float(scaled.mean())]
    found += np.quantile(pixels.max(axis=-1) - pixels.min(axis=-1), (0.1, 0.5, 0.9)).tolist()
    return np.array([*found, *np.quantile(bright, (0.02, 0.1, 0.5, 0.9, 0.98))])


def read_domain(path: Path) -> Domain:
    """The rule in a file; raises `ModelError` where it is missing or damaged."""
    try:
        content = read_json(path, _RULE, remedy="restore it", error=ModelError)
    except OSError as error:
        raise ModelError(f"{path}, the description of the training images, cannot be read: restore it") from error
    domain = Domain(**{**content, "weights": tuple(content["weights"])})
    if len(domain.weights) != STATISTICS:
        raise ModelError(f"{path} has {len(domain.weights)} weights where {STATISTICS} are needed: restore it")
    return domain


def write_domain(path: Path, domain: Domain) -> None:
    """Writes the rule, whole or not at all."""
    write_file(path, json.dumps(asdict(domain)) + "\n")
