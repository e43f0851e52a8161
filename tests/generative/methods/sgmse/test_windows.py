"""Windows that fade into each other: what a network of one frame answers is not changed by them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from generative.methods.sgmse.windows import Windowed


def pointwise(x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Sees one bin at a time."""
    return (1 + t[:, None, None, None]) * x_t - 0.5 * y


def spectra(frames: int, items: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    x, y = (torch.randn(items, 1, 5, frames, dtype=torch.complex128, generator=generator) for _ in range(2))
    return x, y, torch.linspace(0.1, 0.9, items, dtype=torch.float64)


@given(
    windows=st.integers(1, 6),
    rest=st.integers(0, 63),
    overlap=st.floats(0.01, 0.5),
    at_once=st.integers(1, 5),
)
def test_of_a_network_that_sees_one_frame_nothing_changes(windows, rest, overlap, at_once):
    inputs = spectra(64 * windows + rest)
    found = Windowed(pointwise, window=64, overlap=overlap, at_once=at_once)(*inputs)
    torch.testing.assert_close(found, pointwise(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("frames", [63, 64, 65, 100, 1000])
def test_windows_cover_every_frame_and_stay_inside(frames):
    windowed = Windowed(pointwise, window=64, overlap=0.25)
    starts = windowed.starts(frames) if frames > 64 else [0]
    covered = {place for start in starts for place in range(start, start + 64)}
    assert covered >= set(range(frames))
    assert max(starts) + 64 == max(frames, 64)
    # No more is computed than the overlap asks for: neighbours share a quarter, the last two perhaps more.
    assert all(b - a == 48 for a, b in pairwise(starts[:-1]))


def test_the_network_never_sees_more_than_a_window():
    seen = []

    def net(x_t, y, t):
        seen.append(x_t.shape)
        return x_t

    Windowed(net, window=64, overlap=0.25, at_once=3)(*spectra(200))
    assert {shape[-1] for shape in seen} == {64}
    assert max(shape[0] for shape in seen) <= 3
    assert sum(shape[0] for shape in seen) == 2 * 4


def test_seams_fade():
    """Two windows that answer 0 and 1: between them the answer rises without a jump."""
    answers = iter((0.0, 1.0))

    def net(x_t, y, t):
        return torch.full_like(x_t, next(answers))

    found = Windowed(net, window=64, overlap=0.5, at_once=1)(*spectra(96, items=1))[0, 0, 0].real
    assert found[:32].abs().max() == 0
    assert (found[64:] - 1).abs().max() < 1e-12
    steps = found.diff()
    assert steps.min() >= 0
    assert steps.max() <= 1 / 32 + 1e-12
