"""Windows on pixels: against a canvas on which every window is enlarged and laid as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.colour_encoder import ColourEncoder
from tests.tiny_models import tiny_clip
from tests.tolerance import COSINES, assert_close
from ttd.encoders.base import Encoder
from ttd.inference.options import Options
from ttd.inference.stitching import Stitched
from ttd.inference.views import View, encode_views


def laid(views: list[View], encoder: Encoder, text: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean over scales and mirrorings of each canvas's mean over windows, `[B,N,H,W]`."""
    total = torch.zeros(1)
    for full in {(view.rows.full, view.columns.full, view.columns.mirrored) for view in views}:
        height, width, mirrored = full
        canvas, count = torch.zeros(1, 1, height, width), torch.zeros(height, width)
        own = [view for view in views if (view.rows.full, view.columns.full, view.columns.mirrored) == full]
        for view in own:
            top, left = view.features.offset
            rows, columns = view.features.size
            maps = encoder.similarity(view.features, text)
            maps = interpolate(maps, view.features.padded, mode="bilinear")[
                ..., top : top + rows, left : left + columns
            ]
            place = (
                slice(view.rows.start, view.rows.start + rows),
                slice(view.columns.start, view.columns.start + columns),
            )
            window = torch.zeros(*maps.shape[:2], height, width)
            window[..., place[0], place[1]] = maps
            canvas = canvas + window
            count[place] += 1
        canvas = canvas / count
        canvas = canvas.flip(-1) if mirrored else canvas
        total = total + own[0].weight * interpolate(canvas, size, mode="bilinear")
    return total


@torch.no_grad()
@pytest.mark.parametrize("values", [1, 3000, 10**7])
@pytest.mark.parametrize(
    "changes",
    [
        {"window": 32, "stride": 16, "flip": True},
        {"window": 37, "stride": 19, "resize": "opencv"},
        {"window": 37, "stride": 19, "resize": "opencv", "pad": 16, "flip": True},
        {"window": 40, "scales": (1.0, 0.5), "flip": True},
        {"window": 500, "resize": "opencv"},
    ],
)
def test_windows_are_averaged_on_pixels(values: int, changes: dict[str, object]) -> None:
    encoder, options, text = tiny_clip(), Options(**changes), torch.randn(3, 48)
    sides = [(67, 90), (33, 45)] if options.resize == "opencv" else [(64, 96), (32, 48)]
    pixels = [torch.randn(2, 3, *side) for side in sides][: len(options.scales)]
    views = list(encode_views(encoder, pixels, options))
    asked, size = Stitched.ask(views, lambda features: encoder.similarity(features, text)), (50, 71)
    expected = laid(views, encoder, text, size)
    for image in range(2):
        found = torch.full((3, *size), torch.nan)
        for maps, rows, block in asked.blocks(image, size, values):
            assert block.numel() <= max(values, size[1])
            found[maps, rows] = block
        assert_close(found, expected[image], COSINES + 32)


@torch.no_grad()
def test_padding_of_an_encoders_own_is_cut_off() -> None:
    encoder = ColourEncoder(padding=16, own_maps=True)
    options, text = Options(window=24, stride=12, flip=True), encoder.encode_text(["red", "blue", "padding"])
    views = list(encode_views(encoder, [torch.randn(1, 3, 37, 51)], options))
    asked = Stitched.ask(views, lambda features: encoder.similarity(features, text))
    assert_close(asked.read(0, (37, 51)), laid(views, encoder, text, (37, 51))[0], COSINES)


@torch.no_grad()
def test_a_whole_image_goes_to_its_size_in_one_step() -> None:
    encoder, text = tiny_clip(), torch.randn(3, 48)
    views = list(encode_views(encoder, [torch.randn(1, 3, 64, 96)], Options()))
    sim = encoder.similarity(views[0].features, text)
    found = Stitched.ask(views, lambda features: encoder.similarity(features, text), in_windows=False)
    assert found.grid == (4, 6)
    assert_close(found.read(0, (200, 300)), interpolate(sim, (200, 300), mode="bilinear")[0], COSINES)
