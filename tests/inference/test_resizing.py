import pytest
import torch
from torch.nn.functional import interpolate

from tests.tolerance import assert_close, float_tolerance, largest_difference
from ttd.inference.resizing import Sampling, resize, sample


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (3, 5), (1, 1), (20, 4)])
def test_resizing_is_the_usual_bilinear_one(size: tuple[int, int]) -> None:
    maps = torch.randn(3, 7, 9)
    expected = interpolate(maps[None].double(), size, mode="bilinear", align_corners=False)[0]
    # Positions are rounded to six digits, on each of two axes; a value moves by as much of the step between cells.
    spread, largest = float(maps.max() - maps.min()), float(maps.abs().max())
    allowed = 2 * 0.5e-6 * spread + float_tolerance(torch.float32, 4, scale=largest)
    assert largest_difference(resize(maps, size), expected) < allowed


def test_resizing_to_the_same_size_changes_nothing() -> None:
    maps = torch.randn(3, 37, 59)
    assert torch.equal(resize(maps, (37, 59)), maps)


def test_cell_weights_are_what_the_mean_over_samples_gives_each_cell() -> None:
    maps = torch.randn(6, 8)
    rows = Sampling.at(torch.rand(5, dtype=torch.float64) * 6, 6, torch.rand(5, dtype=torch.float64))
    columns = Sampling.at(torch.rand(9, dtype=torch.float64) * 8, 8)
    weights = rows.cell_weights(6)[:, None] * columns.cell_weights(8)
    mean = sample(maps, rows, columns).mean()
    assert_close((maps * weights).sum(), mean, 6 * 8 + 5 * 9, scale=float(maps.abs().max()))


@pytest.mark.parametrize("shape", [(1, 5, 7), (81, 28, 37), (3, 40, 60)])
def test_picking_whole_rows_changes_nothing(shape: tuple[int, int, int]) -> None:
    maps = torch.randn(shape)
    rows = Sampling.at(torch.rand(31, dtype=torch.float64) * shape[1], shape[1], torch.rand(31, dtype=torch.float64))
    columns = Sampling.at(torch.rand(23, dtype=torch.float64) * shape[2], shape[2])
    down = torch.lerp(maps[..., rows.low, :], maps[..., rows.high, :], rows.fraction[:, None]) * rows.weight[:, None]
    across = torch.lerp(down[..., columns.low], down[..., columns.high], columns.fraction) * columns.weight
    assert_close(sample(maps, rows, columns), across, 6)
