from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[3] / "golden" / "sgmse"


@pytest.fixture(scope="session")
def arrays() -> Callable[[str], dict[str, Tensor]]:
    """Arrays of a golden file as tensors."""

    def load(name: str) -> dict[str, Tensor]:
        with np.load(GOLDEN / f"{name}.npz") as found:
            return {key: torch.tensor(value) for key, value in found.items()}

    return load


@pytest.fixture
def near() -> Callable[..., None]:
    """Holds the greatest difference against the greatest magnitude of what is wanted."""

    def check(found: Tensor, wanted: Tensor, tolerance: float) -> None:
        assert found.shape == wanted.shape
        error = (found - wanted).abs().max() / wanted.abs().max()
        assert error <= tolerance, f"relative error {error:.2e}"

    return check


@pytest.fixture
def complex_noise() -> Callable[..., Tensor]:
    """Complex normal numbers, E|z|^2 = 1, from a seed of their own."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    return draw


@pytest.fixture
def y(complex_noise):
    return 0.3 * complex_noise(2, 1, 3, 4)


@pytest.fixture
def draws(complex_noise):
    return lambda name, step: complex_noise(2, 1, 3, 4, seed=1000 + 10 * step + len(name))
