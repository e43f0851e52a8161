"""8-bit rounding, PNG files, grids and pictures of points."""

import io

import numpy as np
import pytest
import torch

from generative.data.image_files import grid_png, png, points_png, to_uint8
from generative.errors import DataError

image = pytest.importorskip("PIL.Image")


def pixels(data):
    return np.asarray(image.open(io.BytesIO(data)))


def test_rounding_undoes_the_scaling_of_all_256_values_and_rounds_halves_up():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(values.float() / 127.5 - 1), values)
    steps = torch.tensor([-3.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 0.0, 1.0, 7.0], dtype=torch.float64)
    assert to_uint8(steps).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert torch.equal(to_uint8(values), values)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="2 of 3 pixels"):
        to_uint8(torch.tensor([0.0, float("nan"), float("inf")]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_file_holds_the_pixels(channels):
    sample = torch.linspace(-1, 1, channels * 30).reshape(channels, 5, 6)
    found = pixels(png(sample)).reshape(5, 6, channels)
    assert np.array_equal(found, to_uint8(sample).permute(1, 2, 0).numpy())


def test_a_grid_puts_each_sample_in_its_cell_enlarged_by_whole_pixels():
    samples = torch.randint(0, 255, (5, 3, 2, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = pixels(grid_png(samples, columns=3, scale=2, gap=1))
    assert found.shape == (2 * 5 - 1, 3 * 9 - 1, 3)
    cell = found[5:9, 9:17]
    assert np.array_equal(cell[::2, ::2], samples[4].permute(1, 2, 0))
    assert np.array_equal(cell[1::2, 1::2], samples[4].permute(1, 2, 0))
    assert (found[5:, 18:] == 255).all()
    assert pixels(grid_png(samples[:, :1], columns=8, gap=0)).shape == (2, 20)


def test_points_are_drawn_where_they_lie():
    found = pixels(points_png(torch.tensor([[0.9, 0.9], [-0.9, -0.9], [float("nan"), 0.0]]), reach=1.0, side=20))
    assert (found < 255).sum() == 2
    top_right, bottom_left = found[:10, 10:], found[10:, :10]
    assert (top_right < 255).sum() == (bottom_left < 255).sum() == 1


@pytest.mark.parametrize(
    ("act", "shape"),
    [(lambda x: grid_png(x, 2), (0, 3, 4, 4)), (lambda x: grid_png(x, 2), (1, 2, 4, 4)), (points_png, (3, 3))],
)
def test_other_shapes_are_refused(act, shape):
    with pytest.raises(DataError) as caught:
        act(torch.zeros(shape))
    assert str(list(shape)) in caught.value.problem
