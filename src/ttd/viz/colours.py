"""Colours that people with any colour vision can tell apart: a scale for values, a palette for classes."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Okabe and Ito's eight, without black (the background) and with the strongest first.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (204, 121, 167),
)


@lru_cache(maxsize=4)
def scale(name: str = "viridis") -> npt.NDArray[np.uint8]:
    """[256,3]: matplotlib's perceptually uniform colour scale `name` ("viridis", "cividis", "inferno",
    ...).
    """
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def colour_values(values: npt.ArrayLike, name: str = "viridis") -> npt.NDArray[np.uint8]:
    """Colours [...,3] of `values` in 0..1 (clipped; a value that is not a number counts as 0)."""
    clipped = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0), 0.0, 1.0)
    return scale(name)[(clipped * 255).round().astype(np.uint8)]


def class_colours(number: int) -> npt.NDArray[np.uint8]:
    """[number,3]: Okabe and Ito's palette, then colours that step around the hues by the golden angle."""
    rows = list(_OKABE_ITO[:number])
    for index in range(len(rows), number):
        lightness = (0.35, 0.5, 0.68)[index % 3]
        colour = colorsys.hls_to_rgb(index * 0.61803398875 % 1.0, lightness, 0.65)
        rows.append((round(colour[0] * 255), round(colour[1] * 255), round(colour[2] * 255)))
    return np.array(rows, dtype=np.uint8).reshape(number, 3)
