"""Fixed-point sampling against floating point, and composition against the formula."""

from __future__ import annotations

import numpy as np
import pytest

from ttd.scenes.drawing import Draws, draw_sprite, load_atlas, paste


def sample_in_float(sprite: np.ndarray, size: int, angle: int, mirror: bool, half: int) -> np.ndarray:
    """Inverse mapping and bilinear interpolation, pixel by pixel; `sprite` has a transparent frame."""
    side = sprite.shape[0] - 2
    scale = side / size
    out = np.zeros((2 * half, 2 * half, 4))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for i in range(2 * half):
        for j in range(2 * half):
            y, x = i + 0.5 - half, j + 0.5 - half
            u, v = (x * c - y * s) * scale, (x * s + y * c) * scale
            u = (-u if mirror else u) + (side - 1) / 2 + 1
            v = v + (side - 1) / 2 + 1
            u, v = np.clip(u, 0, side + 0.999), np.clip(v, 0, side + 0.999)
            a, b = int(v), int(u)
            fv, fu = v - a, u - b
            top = sprite[a, b] * (1 - fu) + sprite[a, b + 1] * fu
            bottom = sprite[a + 1, b] * (1 - fu) + sprite[a + 1, b + 1] * fu
            out[i, j] = top * (1 - fv) + bottom * fv
    return out


CASES = [(0, 30, 0, False), (3, 48, 25, True), (77, 52, -30, False)]


@pytest.mark.parametrize(("noun", "size", "angle", "mirror"), CASES)
def test_sprite_is_what_floating_point_gives(noun: int, size: int, angle: int, mirror: bool) -> None:
    drawn = draw_sprite(noun, 1, size, angle, mirror)
    atlas = load_atlas()
    source = (atlas.small if size <= 48 else atlas.large)[noun, 1].astype(float)
    expected = sample_in_float(source, size, angle, mirror, drawn.shape[0] // 2)
    assert np.abs(drawn - expected).max() <= 4
    assert (drawn[..., :3] <= drawn[..., 3:]).all()


def test_whole_sprite_fits_its_box() -> None:
    for angle in range(-30, 31, 5):
        drawn = draw_sprite(12, 0, 60, angle, False)
        edge = np.concatenate([drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]])
        assert edge[:, 3].max() < 128


def test_paste_composes_over_and_clips_at_the_border() -> None:
    image = np.full((20, 20, 3), 200, np.uint8)
    labels = np.zeros((20, 20), np.uint16)
    drawn = np.zeros((8, 8, 4), np.uint8)
    drawn[2:6, 2:6] = (100, 50, 0, 255)
    drawn[0, 0] = (40, 40, 40, 100)
    paste(image, labels, drawn, (2, 18), 3)
    assert image[1, 17].tolist() == [100, 50, 0]
    assert labels[1, 17] == 3
    assert labels.sum() == 3 * 4 * 4
    assert image[10, 10].tolist() == [200, 200, 200]
    paste(image, labels, drawn, (14, 4), 1)
    assert image[10, 0].tolist() == [(200 * 155 + 127) // 255 + 40] * 3
    assert labels[10, 0] == 0


def test_draws_stay_in_range_and_repeat() -> None:
    one, two = Draws(3, 1, 9), Draws(3, 1, 9)
    values = [one.between(-2, 5) for _ in range(500)]
    assert values == [two.between(-2, 5) for _ in range(500)]
    assert set(values) == set(range(-2, 6))
    assert sorted(one.sample(list(range(10)), 10)) == list(range(10))
    assert Draws(3, 1, 10).below(1000) != Draws(3, 1, 9).below(1000)
    assert len(one.raw_bytes(13)) == 13
