from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tests.colour_encoder import ColourEncoder
from tests.tolerance import COLOURS, assert_close
from ttd.encoders.features import ImageFeatures
from ttd.images import prepare_pixels
from ttd.inference.options import Options
from ttd.inference.views import Axis, average, average_feature, encode_views, encoding_time, prepare
from ttd.scoring import mean_feature

TEXT = ["red", "blue", "padding"]


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise that is red on the left and blue on the right."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] += 150
    pixels[:, width // 2 :, 2] += 150
    return Image.fromarray(pixels)


def normalised(image: Image.Image) -> Tensor:
    """Pixels `[1,3,H,W]` at the image's own size, so that encoders that pad have to."""
    return prepare_pixels(image, (image.height, image.width), (0.5,) * 3, (0.5,) * 3)[None]


def cosines(encoder: ColourEncoder, image: Image.Image, options: Options) -> Tensor:
    pixels = [scaled[None] for scaled in prepare(image, encoder, options)]
    text = encoder.encode_text(TEXT)
    return average(encode_views(encoder, pixels, options), lambda f: encoder.similarity(f, text))[0]


def test_a_single_view_is_the_encoders_own_map() -> None:
    encoder = ColourEncoder()
    image, options = scene(40, 60), Options()
    pixels = prepare(image, encoder, options)[0][None]
    own = encoder.similarity(encoder.encode_image(pixels), encoder.encode_text(TEXT))[0]
    assert_close(cosines(encoder, image, options), own, COLOURS)


def test_mirroring_and_windows_of_an_encoder_without_context_change_nothing() -> None:
    encoder = ColourEncoder()
    image = scene(40, 60)
    plain = cosines(encoder, image, Options())
    for changes in ({"flip": True}, {"window": 16, "stride": 8}, {"window": 20, "stride": 12, "flip": True}):
        seen = cosines(encoder, image, Options(**changes))
        assert_close(seen, plain, COLOURS + 2 * 4)  # the mean over at most two by two windows, mirrored too


def test_scales_are_averaged_on_the_finest_grid() -> None:
    encoder = ColourEncoder()
    image = scene(32, 64)
    fine, coarse = (cosines(encoder, image, Options(scales=(scale,))) for scale in (2.0, 0.5))
    larger = interpolate(coarse[None], fine.shape[-2:], mode="bilinear", align_corners=False)[0]
    both = cosines(encoder, image, Options(scales=(0.5, 2.0)))
    assert_close(both, (fine + larger) / 2, COLOURS)


@pytest.mark.parametrize(
    "changes", [{}, {"flip": True}, {"window": 24, "stride": 12, "flip": True, "scales": (1.0, 0.5)}]
)
def test_padding_never_wins(changes: dict[str, object]) -> None:
    encoder = ColourEncoder(padding=16, own_maps=True)
    options = Options(**changes)
    pixels = [normalised(scene(37, 51)), normalised(scene(19, 25))][: len(options.scales)]
    text = encoder.encode_text(TEXT)
    sim = average(encode_views(encoder, pixels, options), lambda f: encoder.similarity(f, text))[0]
    assert sim[0, :, 0].min() > 0.5
    assert sim[1, :, -1].min() > 0.5
    # A cell at the border that is padding to one half may look like padding to that share, no cell more.
    assert sim[2].max() < 0.8


def test_window_positions_reach_the_end_and_match_their_coverage() -> None:
    encoder = ColourEncoder()
    pixels = [torch.zeros(1, 3, 40, 64)]
    views = list(encode_views(encoder, pixels, Options(window=16, stride=12)))
    assert sorted({view.rows.start for view in views}) == [0, 12, 24]
    assert sorted({view.columns.start for view in views}) == [0, 12, 24, 36, 48]
    ones = average(views, lambda f: torch.ones(1, 1, *f.dense.shape[-2:]))
    assert_close(ones, torch.ones(1, 1, 10, 16), 4)


def test_a_window_larger_than_the_image_is_the_image() -> None:
    encoder = ColourEncoder()
    assert len(list(encode_views(encoder, [torch.zeros(1, 3, 8, 40)], Options(window=448)))) == 1


def test_windows_fill_patches() -> None:
    encoder = ColourEncoder(cell=4)
    views = encode_views(encoder, [torch.zeros(1, 3, 40, 40)], Options(window=17, stride=9))
    assert all(view.rows.length % 4 == 0 and view.rows.start % 4 == 0 for view in views)


def test_batches_are_images_side_by_side() -> None:
    encoder = ColourEncoder()
    options = Options(flip=True, window=16, stride=8)
    pixels = torch.stack([prepare(scene(32, 48, seed), encoder, options)[0] for seed in range(3)])
    text = encoder.encode_text(TEXT)
    together = average(encode_views(encoder, [pixels], options), lambda f: encoder.similarity(f, text))
    for i in range(3):
        alone = average(encode_views(encoder, [pixels[i : i + 1]], options), lambda f: encoder.similarity(f, text))
        assert_close(together[i], alone[0], COLOURS + 2 * 4)


def test_the_mean_feature_of_one_view_is_the_plain_mean() -> None:
    encoder = ColourEncoder()
    options = Options()
    pixels = [scaled[None] for scaled in prepare(scene(40, 60), encoder, options)]
    dense = encoder.encode_image(pixels[0]).dense
    assert_close(average_feature(encode_views(encoder, pixels, options)), mean_feature(dense), COLOURS + 8 * 12)


def test_the_mean_feature_of_many_views_is_the_mean_over_the_canvas() -> None:
    encoder = ColourEncoder(padding=16, own_maps=True)
    options = Options(scales=(1.0, 0.5), flip=True, window=24, stride=12)
    pixels = [normalised(scene(37, 51)), normalised(scene(19, 25))]
    views = list(encode_views(encoder, pixels, options))
    by_canvas = average(views, lambda f: f.dense).mean((-2, -1))
    # Means over all cells of all windows, one after the other or on one canvas.
    cells = sum(view.features.dense[0, 0].numel() for view in views)
    assert_close(average_feature(views), by_canvas, COLOURS + cells)


def test_an_axis_samples_where_the_window_lies() -> None:
    axis = Axis(full=16, starts=(0, 8), start=8, length=8)
    found = axis.sampling(cells=2, targets=4, offset=0, padded=8)
    assert found.weight.tolist() == [0, 0, 1, 1]
    assert found.low[2:].tolist() == [0, 1]
    mirrored = Axis(full=16, starts=(0, 8), start=8, length=8, mirrored=True)
    found = mirrored.sampling(cells=2, targets=4, offset=0, padded=8)
    assert found.weight.tolist() == [1, 1, 0, 0]
    assert found.low[:2].tolist() == [1, 0]


def test_mirrored_windows_are_windows_of_the_mirrored_image() -> None:
    seen: list[Tensor] = []

    class Watched(ColourEncoder):
        def encode_image(self, pixels: Tensor) -> ImageFeatures:
            seen.append(pixels)
            return super().encode_image(pixels)

    pixels = torch.rand(1, 3, 20, 44)
    plain = Options(window=16, stride=8)
    list(encode_views(Watched(), [pixels], replace(plain, flip=True)))
    both, seen = torch.cat(seen), []
    list(encode_views(Watched(), [pixels], plain))
    list(encode_views(Watched(), [pixels.flip(-1)], plain))
    assert torch.equal(both, torch.cat(seen))


def test_the_time_of_an_image_is_one_window_by_the_pixels_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows that are counted are those that are encoded."""
    encoder = ColourEncoder()
    clock = iter([0.0, 70.0, 100.0, 103.0])  # the first window warms up, the second takes 3 s
    monkeypatch.setattr("ttd.inference.views.time.perf_counter", lambda: next(clock))
    options = Options(size=32, scales=(0.5, 2.0), window=24, stride=12, flip=True)
    windows, seconds = encoding_time((40, 60), encoder, options)
    pixels = [scaled[None] for scaled in prepare(scene(40, 60), encoder, options)]
    views = list(encode_views(encoder, pixels, options))
    assert sum(windows) == len(views)
    area = sum(view.features.size[0] * view.features.size[1] for view in views)
    assert seconds == pytest.approx(3.0 * area / (24 * 24))
    assert encoding_time((40, 60), encoder, Options()) == ([1], 0.0)  # a look or two are not worth a word
