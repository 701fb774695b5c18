"""The sprites of the embedded world, and how they are drawn onto a background.

The atlas is one PNG with its hash, decoded once, kept at two sizes. A sprite is turned, mirrored and scaled by bilinear
sampling in fixed-point arithmetic, so that every machine draws the same pixels.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import cos, radians, sin

import numpy as np
from PIL import Image

from ttd.errors import TTDError
from ttd.files.documents import parse_json

_ONE = 1 << 16
ANGLE_STEP = 5
MAX_ANGLE = 30


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


@cache
def _rotation(angle: int) -> tuple[int, int]:
    return round(cos(radians(angle)) * _ONE), round(sin(radians(angle)) * _ONE)


@cache
def _offsets(half: int) -> np.ndarray:
    """Pixel centres of a box of side 2*half around its own centre, in half pixels, int64 [2*half]."""
    return np.arange(-2 * half + 1, 2 * half, 2, dtype=np.int64)


def draw_sprite(noun: int, style: int, size: int, angle: int, mirror: bool) -> np.ndarray:
    """A sprite as it appears in a scene, premultiplied RGBA, uint8 [2h, 2h, 4], centred.

    `size` is the length of the drawing's longer side in pixels, `angle` is in degrees, counter-clockwise.
    """
    atlas = load_atlas()
    source = atlas.small if size <= 48 else atlas.large
    sprite = source[noun, style]
    side = sprite.shape[0] - 2
    cosine, sine = _rotation(angle)
    half = (size * (abs(cosine) + abs(sine)) // _ONE + 3) // 2
    along = _offsets(half)
    scale = side * _ONE // (2 * size)  # source pixels per half pixel of the scene, 16.16
    u = (along[None, :] * cosine - along[:, None] * sine) * scale // _ONE
    v = (along[None, :] * sine + along[:, None] * cosine) * scale // _ONE
    if mirror:
        u = -u
    centre = (side - 1) * _ONE // 2
    return _bilinear(sprite, u + centre, v + centre)


def _bilinear(sprite: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Samples a framed sprite [side+2, side+2, 4] at 16.16 positions (u right, v down); outside is transparent."""
    width = sprite.shape[0]
    limit = (width - 1) * _ONE - 1
    u = np.clip(u + _ONE, 0, limit)
    v = np.clip(v + _ONE, 0, limit)
    corner = (v >> 16) * width + (u >> 16)
    fu = ((u >> 8) & 255).astype(np.uint16)[..., None]
    fv = ((v >> 8) & 255).astype(np.uint16)[..., None]
    packed = sprite.reshape(-1).view(np.uint32)  # four channels in one word: one gather instead of four

    def row(start: np.ndarray) -> np.ndarray:
        left, right = (packed[start + step].view(np.uint8).reshape(*start.shape, 4) for step in (0, 1))
        return np.asarray(left * (256 - fu) + right * fu + 128, np.uint16) >> 8

    blended = np.asarray(row(corner) * (256 - fv) + row(corner + width) * fv + 128, np.uint16)
    return np.asarray(blended >> 8, np.uint8)


def paste(image: np.ndarray, labels: np.ndarray, drawn: np.ndarray, centre: tuple[int, int], label: int) -> None:
    """Composes a premultiplied RGBA drawing onto image [H, W, 3] and writes `label` where it is half opaque."""
    half = drawn.shape[0] // 2
    height, width = labels.shape
    top, left = centre[0] - half, centre[1] - half
    y0, y1, x0, x1 = max(top, 0), min(top + 2 * half, height), max(left, 0), min(left + 2 * half, width)
    part = drawn[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3:].astype(np.uint16)
    under = image[y0:y1, x0:x1]
    under[...] = (under * (255 - alpha) + 127) // 255 + part[..., :3]
    labels[y0:y1, x0:x1][alpha[..., 0] >= 128] = label
