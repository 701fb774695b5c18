"""Sprites onto a background: turned, mirrored, scaled by bilinear sampling in fixed-point arithmetic."""

from __future__ import annotations

from functools import cache
from math import cos, radians, sin

import numpy as np

from ttd.scenes.atlas import load_atlas

_ONE = 1 << 16
ANGLE_STEP = 5
MAX_ANGLE = 30


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
