"""The sprites of the synthetic scenes, how they are drawn onto a background, and the backgrounds: textures with names.

The atlas is one PNG with its hash, decoded once, kept at two sizes. A sprite is turned, mirrored and scaled by bilinear
sampling in fixed-point arithmetic, so that every machine draws the same pixels. So are random draws: NumPy promises the
raw stream of a bit generator, not the streams of `Generator`'s methods, and floating-point functions differ in the last
bit between machines; every draw is integer arithmetic on raw 64-bit words."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import cos, radians, sin
from typing import TypeVar

import numpy as np
from PIL import Image

from ttd.errors import TTDError
from ttd.files.documents import parse_json
from ttd.scenes.nouns import BACKGROUNDS

T = TypeVar("T")
_BLOCK = 64


class Draws:
    """A stream of draws that (seed, stream, index) alone decide."""

    def __init__(self, seed: int, stream: int, index: int) -> None:
        self._bits = np.random.Philox(key=[seed % 2**64, stream % 2**64], counter=[0, 0, 0, index % 2**64])
        self._words: list[int] = []

    def below(self, n: int) -> int:
        """An integer in 0..n-1 (n far below 2**32, so that the bias stays below 2**-32)."""
        if not self._words:
            self._words = self._bits.random_raw(_BLOCK).tolist()
        return ((self._words.pop() >> 32) * n) >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True in `percent` of a hundred draws."""
        return self.below(100) < percent

    def pick(self, items: tuple[T, ...] | list[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: tuple[T, ...] | list[T], count: int) -> list[T]:
        """`count` different items in random order."""
        pool = list(items)
        for i in range(count):
            j = self.between(i, len(pool) - 1)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def raw_bytes(self, count: int) -> np.ndarray:
        """`count` random bytes, uint8 [count]."""
        words = self._bits.random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count]


_ONE = 1 << 16
ANGLE_STEP = 5
MAX_ANGLE = 30


@dataclass(frozen=True)
class Atlas:
    """All sprites with premultiplied alpha.

    `large` [nouns, styles, 98, 98, 4] and `small` [nouns, styles, 50, 50, 4] are uint8: the longer side of a
    drawing fills 96 or 48 pixels, and a frame of one transparent pixel is the outside.
    """

    nouns: tuple[str, ...]
    styles: tuple[str, ...]
    large: np.ndarray
    small: np.ndarray


@cache
def load_atlas() -> Atlas:
    """Reads the atlas in the package; raises `TTDError` where its pixels are not the published ones."""
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


SIDE = 256
METHODS = 4
_STREAM = 0xBAC


@cache
def textures() -> np.ndarray:
    """All textures, uint8 [backgrounds, methods, 256, 256, 3]."""
    painted = [
        _PAINTERS[name](Draws(0, _STREAM, kind * METHODS + method))
        for kind, name in enumerate(BACKGROUNDS)
        for method in range(METHODS)
    ]
    return np.stack(painted).reshape(len(BACKGROUNDS), METHODS, SIDE, SIDE, 3)


def _noise(draws: Draws, cell_y: int, cell_x: int, smooth: int = 1) -> np.ndarray:
    """Noise in 0..255, int32 [256, 256]: cells of the given size, blurred `smooth` times, wrapping around."""
    rows, columns = SIDE // cell_y, SIDE // cell_x
    values = draws.raw_bytes(rows * columns).reshape(rows, columns).astype(np.int32)
    field = values.repeat(cell_y, axis=0).repeat(cell_x, axis=1)
    for _ in range(smooth):
        field = _blur(_blur(field, cell_y, 0), cell_x, 1)
    return field


def _blur(field: np.ndarray, width: int, axis: int) -> np.ndarray:
    if width == 1:
        return field
    total = sum((np.roll(field, shift, axis) for shift in range(width)), np.zeros_like(field))
    return np.asarray(total // width)


def _colour(field: np.ndarray, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """Blends two colours by a field in 0..255, int32 [256, 256, 3]."""
    field = np.clip(field, 0, 255)[..., None]
    return np.asarray((np.array(low) * (255 - field) + np.array(high) * field) // 255)


def _finish(image: np.ndarray, draws: Draws, grain: int) -> np.ndarray:
    shake = (_noise(draws, 1, 1, 0) - 128) * grain // 128
    return np.asarray(np.clip(image + shake[..., None], 0, 255), np.uint8)


def _grass(draws: Draws) -> np.ndarray:
    blades = (_noise(draws, 16, 2) + _noise(draws, 8, 1)) // 2
    return _finish(_colour(blades * 2 - 128, (38, 96, 22), (128, 190, 60)), draws, 14)


def _sky(draws: Draws) -> np.ndarray:
    clouds = (_noise(draws, 32, 64, 2) * 2 + _noise(draws, 16, 32, 2)) // 3
    return _finish(_colour((clouds - 120) * 5, (96, 165, 232), (242, 247, 253)), draws, 2)


def _sand(draws: Draws) -> np.ndarray:
    dunes = (_noise(draws, 16, 64, 2) * 2 + _noise(draws, 4, 4)) // 3
    return _finish(_colour(dunes, (198, 160, 98), (246, 222, 168)), draws, 20)


def _water(draws: Draws) -> np.ndarray:
    waves = (_noise(draws, 4, 32, 1) + _noise(draws, 8, 64, 1)) // 2
    return _finish(_colour((waves - 64) * 2, (10, 62, 122), (88, 172, 206)), draws, 4)


def _snow(draws: Draws) -> np.ndarray:
    drifts = _noise(draws, 32, 64, 2)
    image = _colour(drifts, (214, 226, 240), (255, 255, 255))
    flakes = _noise(draws, 2, 2, 0) > 250
    return _finish(np.where(flakes[..., None], 170, image), draws, 5)


def _brick(draws: Draws) -> np.ndarray:
    height, width = 16, 32
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    row = y // height
    shifted = (x + row % 2 * (width // 2)) % SIDE
    shade = draws.raw_bytes(SIDE // height * SIDE // width).reshape(SIDE // height, SIDE // width).astype(np.int32)
    image = _colour(shade[row, shifted // width], (140, 52, 36), (196, 96, 70))
    mortar = (y % height < 2) | (shifted % width < 2)
    return _finish(np.where(mortar[..., None], np.array((206, 196, 184)), image), draws, 14)


def _wood(draws: Draws) -> np.ndarray:
    plank = 32
    y, _ = np.mgrid[0:SIDE, 0:SIDE]
    grain = (_noise(draws, 2, 64) + _noise(draws, 4, 128)) // 2
    image = _colour((grain - 40) * 3 // 2, (112, 68, 34), (190, 132, 76))
    joint = y % plank < 2
    return _finish(np.where(joint[..., None], np.array((70, 42, 22)), image), draws, 6)


def _night(draws: Draws) -> np.ndarray:
    haze = _noise(draws, 64, 64, 2)
    image = _colour(haze, (8, 10, 34), (34, 36, 86))
    stars = _noise(draws, 2, 2, 0) > 251
    return _finish(np.where(stars[..., None], np.array((250, 246, 214)), image), draws, 3)


def _stone(draws: Draws) -> np.ndarray:
    rough = (_noise(draws, 16, 16, 2) * 2 + _noise(draws, 4, 4)) // 3
    cracks = abs(_noise(draws, 32, 32, 2) - 128) < 3
    image = _colour(rough, (92, 92, 96), (172, 172, 174))
    return _finish(np.where(cracks[..., None], 62, image), draws, 16)


def _tiles(draws: Draws) -> np.ndarray:
    side = 32
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    checks = (y // side + x // side) % 2
    image = np.where(checks[..., None] == 1, np.array((58, 140, 140)), np.array((236, 232, 220)))
    joint = (y % side < 2) | (x % side < 2)
    return _finish(np.where(joint[..., None], np.array((150, 150, 150)), image), draws, 5)


_PAINTERS: dict[str, Callable[[Draws], np.ndarray]] = {
    "grass": _grass,
    "sky": _sky,
    "sand": _sand,
    "water": _water,
    "snow": _snow,
    "brick": _brick,
    "wood": _wood,
    "night": _night,
    "stone": _stone,
    "tiles": _tiles,
}
