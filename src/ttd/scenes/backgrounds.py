"""Procedural backgrounds with names: textures that wrap around, painted with integer arithmetic only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ttd.scenes.nouns import BACKGROUNDS
from ttd.scenes.rng import Draws

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
