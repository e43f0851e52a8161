"""Mixtures of Gaussians in the plane: the ring and the grid of PacGAN (arXiv 1712.04086, section 4.1).

Point i belongs to a uniformly drawn mode and is centre + std * N(0, I), both drawn by counter i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.data.drawn import Drawn
from generative.data.image_config import PointsConfig
from generative.data.image_data import ImageData, array_hash
from generative.data.order import Indices
from generative.data.sources import checked
from generative.method import DataFacts
from generative.randomness import Streams


@dataclass(frozen=True)
class Mixture:
    """Equally likely modes at `centres` float64[M, 2], each with covariance std^2 I."""

    centres: NDArray[np.float64]
    std: float


def mixture(kind: str) -> Mixture:
    """The mixture of a `PointsConfig.kind`.

    ring: mode k at (cos, sin)(2 pi k / 8), std 0.01. grid: mode 5 a + b at (2 a - 4, 2 b - 4), std 0.05.
    """
    if kind == "ring":
        angles = 2 * np.pi * np.arange(8) / 8
        return Mixture(np.stack([np.cos(angles), np.sin(angles)], axis=1), 0.01)
    side = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
    return Mixture(np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2), 0.05)


class Points:
    """Points of a mixture, by number.

    Args:
        mixture: to draw from.
        size: number of points.
        stream: of the noise, so that training and held-out points draw differently.
    """

    def __init__(self, mixture: Mixture, size: int, stream: str) -> None:
        self.mixture, self.stream = mixture, stream
        self.modes, self.noise = Drawn(size, self._draw_modes), Drawn(size, self._draw_noise)

    def __len__(self) -> int:
        return self.modes.size

    def _draw_modes(self, numbers: Indices) -> NDArray[np.int64]:
        drawn = Streams(0).integers(f"{self.stream}/mode", numbers.tolist(), len(self.mixture.centres))
        return np.asarray(drawn, dtype=np.int64)

    def _draw_noise(self, numbers: Indices) -> NDArray[np.float64]:
        return np.asarray(Streams(0).normal(f"{self.stream}/noise", numbers.tolist(), (2,), torch.float64))

    def fetch(self, indices: Indices) -> dict[str, Tensor]:
        """{"sample": float32[B, 2], "label": int64[B], the mode} for point numbers int64[B]."""
        numbers = checked(indices, len(self))
        modes = self.modes[numbers]
        sample = self.mixture.centres[modes] + self.mixture.std * self.noise[numbers]
        return {"sample": torch.from_numpy(sample).float(), "label": torch.from_numpy(modes)}


def open_points(config: PointsConfig) -> ImageData:
    """Points of shape [2]; the label is the mode."""
    chosen = mixture(config.kind)
    modes, sizes = len(chosen.centres), np.array([config.size, config.validation_size])
    return ImageData(
        train=Points(chosen, config.size, f"points/{config.kind}/train"),
        validation=Points(chosen, config.validation_size, f"points/{config.kind}/validation"),
        facts=DataFacts(sample_shape=(2,), classes=modes),
        description=f"{config.kind} of {modes} Gaussians, {config.size} points to train on, "
        f"{config.validation_size} held out",
        fingerprint=array_hash(sizes, chosen.centres, np.array(chosen.std)),
        classes=modes,
        kind="points",
    )
