"""FIR resampling against the published form, the released numbers, and its own adjoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from generative.nets.fir import FirResample

GOLDEN = Path(__file__).parents[2] / "golden" / "sgmse" / "fir_resample.npz"


def up_by_zeros(x, kernel):
    """Zeros between the samples, two before and one after all, and a full convolution with four times the kernel."""
    B, C, H, W = x.shape
    stuffed = torch.zeros(B, C, 2 * H, 2 * W, dtype=x.dtype)
    stuffed[:, :, ::2, ::2] = x
    images = F.pad(stuffed, (2, 1, 2, 1)).flatten(0, 1)[:, None]
    return F.conv2d(images, 4 * kernel.flip(0, 1)[None, None]).unflatten(0, (B, C))[:, :, 0]


def down_by_dropping(x, kernel):
    """A full convolution of what is padded by 1, of which every second sample stays."""
    images = F.pad(x, (1, 1, 1, 1)).flatten(0, 1)[:, None]
    return F.conv2d(images, kernel.flip(0, 1)[None, None]).unflatten(0, x.shape[:2])[:, :, 0, ::2, ::2]


FORMS = {"up": up_by_zeros, "down": down_by_dropping}


@pytest.mark.parametrize("direction", FORMS)
def test_released_numbers(direction):
    golden = np.load(GOLDEN)
    found = FirResample(direction)(torch.from_numpy(golden["x"]))
    np.testing.assert_allclose(found, golden[direction], rtol=0, atol=1e-6)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("direction", FORMS)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_the_published_form(direction, memory, batch, channels, height, width, seed):
    kernel = torch.from_numpy(np.load(GOLDEN)["kernel"])
    shape = batch, channels, 2 * height, 2 * width
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = FirResample(direction).double()(x.contiguous(memory_format=memory))
    torch.testing.assert_close(found, FORMS[direction](x, kernel), rtol=0, atol=1e-12)


def test_up_is_four_times_the_adjoint_of_down():
    x, y = torch.randn(2, 3, 8, 6, dtype=torch.float64), torch.randn(2, 3, 4, 3, dtype=torch.float64)
    up, down = FirResample("up").double(), FirResample("down").double()
    torch.testing.assert_close(4 * (down(x) * y).sum(), (x * up(y)).sum())


def test_the_kernel_is_no_weight_and_is_there_without_them():
    """It comes from no file: networks that are built on the meta device and filled have it too."""
    with torch.device("meta"):
        layer = FirResample("down")
    assert not layer.state_dict()
    torch.testing.assert_close(layer(torch.ones(1, 2, 6, 6))[0, 0, 1:-1, 1:-1], torch.ones(1, 1))
