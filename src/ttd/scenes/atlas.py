"""The sprites of the embedded world: one PNG with its hash, decoded once, kept at two sizes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from ttd.documents import parse_json
from ttd.errors import TTDError


@dataclass(frozen=True)
class Atlas:
    """All sprites with premultiplied alpha.

    `large` [nouns, styles, 98, 98, 4] and `small` [nouns, styles, 50, 50, 4] are uint8: the longer side of a
    drawing fills 96 or 48 pixels, and a frame of one transparent pixel is what lies outside.
    """

    nouns: tuple[str, ...]
    styles: tuple[str, ...]
    large: np.ndarray
    small: np.ndarray


@cache
def load_atlas() -> Atlas:
    """Reads the atlas that lies in the package; raises `TTDError` where its pixels are not the published ones."""
    folder = files("ttd") / "assets" / "scenes"
    index = parse_json((folder / "atlas.json").read_bytes())
    with Image.open(io.BytesIO((folder / "atlas.png").read_bytes())) as image:
        pixels = np.asarray(image.convert("RGBA"))
    if hashlib.sha256(pixels.tobytes()).hexdigest() != index["sha256"]:
        raise TTDError("The atlas of scenes is damaged (its SHA-256 differs): install the package again.")
    side, columns = index["sprite"], index["columns"]
    rows = pixels.shape[0] // side
    grid = pixels.reshape(rows, side, columns, side, 4).swapaxes(1, 2).reshape(-1, side, side, 4)
    nouns, styles = tuple(index["nouns"]), tuple(index["styles"])
    large = _premultiply(grid[: len(nouns) * len(styles)]).reshape(len(nouns), len(styles), side, side, 4)
    return Atlas(nouns, styles, _frame(large), _frame(_halve(large)))


def _premultiply(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.uint16)
    colour = (rgba[..., :3] * alpha + 127) // 255
    return np.concatenate([colour.astype(np.uint8), rgba[..., 3:]], axis=-1)


def _halve(sprites: np.ndarray) -> np.ndarray:
    n, s, side, _, c = sprites.shape
    blocks = sprites.reshape(n, s, side // 2, 2, side // 2, 2, c).astype(np.uint16)
    return np.asarray((blocks.sum(axis=(3, 5)) + 2) // 4, np.uint8)


def _frame(sprites: np.ndarray) -> np.ndarray:
    return np.pad(sprites, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
