"""Augmentation: what is told is what was done; closed forms of single transforms."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from generative.methods.edm.augmentation import SYM6, Transforms, augmented, draw_transforms
from generative.randomness import Streams

IDS = torch.arange(5)


def transforms(count=1, **values):
    return Transforms(
        *(torch.full((count,), float(values.get(f.name, 0.0)), dtype=torch.float64) for f in fields(Transforms))
    )


def images(count=1, side=16):
    return torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def smooth(side=32):
    """A wide bump beside the middle: linear interpolation and the filter change little of it."""
    places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    return lambda u, v: torch.exp(-((u - 3) ** 2 + 2 * (v + 2) ** 2 + (u - 3) * v) / 60), x, y


def drawn(function, x, y):
    return function(x, y)[None, None]


def test_the_filter_is_orthonormal():
    taps = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(6):
        product = (taps[2 * shift :] * taps[: 12 - 2 * shift]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-11)
    assert taps.sum().item() == pytest.approx(math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize("side", [8, 9, 16])
def test_nothing_done_is_nothing_changed(side):
    x = images(3, side)
    torch.testing.assert_close(augmented(x, transforms(3)), x, rtol=0, atol=1e-10)
    assert not transforms(3).labels().any()


def test_flips_move_pixels():
    x = images()
    torch.testing.assert_close(augmented(x, transforms(mirror=1)), x.flip(3), rtol=0, atol=1e-10)
    torch.testing.assert_close(augmented(x, transforms(upside_down=1)), x.flip(2), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"shift_x": 1.0}, lambda x, y: (x - 4, y)),
        ({"shift_y": -0.5}, lambda x, y: (x, y + 2)),
        ({"scale": 1.5}, lambda x, y: (x / 2**0.3, y / 2**0.3)),
        ({"angle": 0.6}, lambda x, y: (math.cos(0.6) * x - math.sin(0.6) * y, math.sin(0.6) * x + math.cos(0.6) * y)),
        ({"stretch": 1.0}, lambda x, y: (x / 2**0.2, y * 2**0.2)),
        ({"stretch": 1.0, "direction": math.pi / 2}, lambda x, y: (x * 2**0.2, y / 2**0.2)),
        ({"scale": 1.0, "shift_x": 0.25}, lambda x, y: ((x - 1) / 2**0.2, y / 2**0.2)),
    ],
    ids=["right", "up", "larger", "turned", "stretched", "stretched upright", "larger and right"],
)
def test_single_transforms(values, source):
    """A smooth image at the place where each pixel comes from, but for the border and the lopsided filter."""
    function, x, y = smooth()
    found = augmented(drawn(function, x, y), transforms(**values))
    wanted = drawn(function, *source(x, y))
    torch.testing.assert_close(found[..., 8:-8, 8:-8], wanted[..., 8:-8, 8:-8], rtol=0, atol=1e-2)


def test_labels():
    told = transforms(
        mirror=1, upside_down=1, scale=0.3, angle=0.5, stretch=2.0, direction=0.4, shift_x=-1, shift_y=0.7
    )
    wanted = [1, 1, 0.3, math.cos(0.5) - 1, math.sin(0.5), 2 * math.cos(0.4), 2 * math.sin(0.4), -1, 0.7]
    torch.testing.assert_close(told.labels()[0], torch.tensor(wanted))


def test_probabilities():
    ids = torch.arange(20_000)
    found = draw_transforms(Streams(0), ids, 0.12)
    assert found.mirror.mean().item() == pytest.approx(0.5, abs=0.02)
    assert found.upside_down.mean().item() == pytest.approx(0.06, abs=0.01)
    for name in ("scale", "angle", "stretch", "shift_x", "shift_y"):
        values = getattr(found, name)
        assert (values != 0).double().mean().item() == pytest.approx(0.12, abs=0.01)
    assert found.scale[found.scale != 0].std().item() == pytest.approx(1, abs=0.05)
    assert found.angle.abs().max() <= math.pi
    assert found.angle[found.angle != 0].std().item() == pytest.approx(math.pi / math.sqrt(3), abs=0.08)
    assert (found.direction != 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert bool(((found.shift_x != 0) == (found.shift_y != 0)).all())


def test_an_image_does_not_depend_on_its_batch():
    x = images(5)
    drawn_for_all = draw_transforms(Streams(1), IDS, 0.8)
    together = augmented(x, drawn_for_all)
    for i in range(5):
        alone = draw_transforms(Streams(1), IDS[i : i + 1], 0.8)
        torch.testing.assert_close(alone.labels(), drawn_for_all.labels()[i : i + 1], rtol=0, atol=0)
        torch.testing.assert_close(augmented(x[i : i + 1], alone), together[i : i + 1], rtol=0, atol=1e-12)
