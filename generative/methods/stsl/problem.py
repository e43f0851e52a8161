"""One posterior-sampling problem: prior, operator, measurements, noise by image, and what it costs.

`Cost` counts truthfully: calls of the network, rows that it saw, vector-Jacobian products through it by image, and
those through the decoder. A paper's NFE is told beside it, never instead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from generative.errors import ConfigError, DataError
from generative.methods.stsl.levels import Level
from generative.methods.stsl.operators.base import Operator
from generative.methods.stsl.prior import Prior
from generative.randomness import Streams


@dataclass
class Cost:
    """What a sampler asked for, over all images.

    Args:
        calls: of the network.
        rows: that these calls held.
        vjps: products with the network's Jacobian, one by image and backward pass.
        decoder_rows, decoder_vjps: the same of the decoder.
        encoder_rows, encoder_vjps: of the encoder.
    """

    calls: int = 0
    rows: int = 0
    vjps: int = 0
    decoder_rows: int = 0
    decoder_vjps: int = 0
    encoder_rows: int = 0
    encoder_vjps: int = 0

    def by_image(self, images: int) -> dict[str, float]:
        """Each count over the number of images (calls as they are)."""
        counts = {key: value / max(1, images) for key, value in vars(self).items() if key != "calls"}
        return {"calls": float(self.calls), **counts}


class Draws(Protocol):
    """N(0, 1) by image: the same for the same (name, step), whatever the batch."""

    def __call__(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        """[B, *shape]."""
        ...

    def rows(self, index: Tensor) -> Draws:
        """Of some images."""
        ...


@dataclass(frozen=True)
class StreamDraws:
    """Noise from counter-based streams, addressed by image ids int64[B]."""

    streams: Streams
    ids: Tensor
    dtype: torch.dtype = torch.float32
    device: torch.device | str = "cpu"

    def __call__(self, name: str, step: int, shape: Sequence[int]) -> Tensor:
        return self.streams.at(step).normal(name, self.ids, shape, self.dtype).to(self.device)

    def rows(self, index: Tensor) -> StreamDraws:
        return replace(self, ids=self.ids[index.to(self.ids.device)])


@dataclass(frozen=True)
class Problem:
    """What is to be sampled: p(z | y).

    Args:
        prior: of z.
        operator: A.
        y: measurements [B, *measured], in the type that states are held in.
        sigma: standard deviation of the measurements' noise, above 0.
        draws: noise.
        cost: counter, shared by parts of the problem.
    """

    prior: Prior
    operator: Operator
    y: Tensor
    sigma: float
    draws: Draws
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        if tuple(self.y.shape[1:]) != self.operator.measured:
            raise DataError(
                f"measurements of shape {list(self.y.shape[1:])} for {self.operator.name}",
                f"{list(self.operator.measured)}, from images {list(self.operator.image)}",
                "give the operator that they were made with, or other measurements",
            )
        if self.operator.image != self.prior.image:
            raise DataError(
                f"an operator of images {list(self.operator.image)}",
                f"{list(self.prior.image)}, as the prior makes them",
                "make the operator for these, or take another prior",
            )
        check_sigma(self.sigma)
        found = float(self.y.abs().max()) if self.y.numel() else 0.0
        most = float("inf") if self.operator.greatest is None else self.operator.greatest + 10 * self.sigma
        if not found <= most:
            raise DataError(
                f"measurements of {self.operator.name} of magnitude {found:g}",
                f"{most:.3g} at most, as images in [-1, 1] with noise of {self.sigma:g} have, and no NaN",
                "give measurements of images in [-1, 1]",
            )

    def rows(self, index: Tensor) -> Problem:
        """The problem of some images (bool[B] or int64); the counter is shared."""
        if index.dtype == torch.bool and bool(index.all()):
            return self
        return replace(self, y=self.y[index], draws=self.draws.rows(index))

    def noise(self, z: Tensor, level: Level) -> Tensor:
        """e(z, level)."""
        self.count(len(z))
        return self.prior.noise(z, level)

    def count(self, rows: int) -> None:
        """One call of the network with so many rows."""
        self.cost.calls += 1
        self.cost.rows += rows

    def decode(self, z0: Tensor) -> Tensor:
        """Images of clean z."""
        if self.prior.decode is None:
            return z0
        self.cost.decoder_rows += len(z0)
        return self.prior.decode(z0)

    def encode(self, x: Tensor) -> Tensor:
        """z of images."""
        if self.prior.encode is None:
            return x
        self.cost.encoder_rows += len(x)
        return self.prior.encode(x)

    def gradient(self, loss: Tensor, z: Tensor, encoded: bool = False) -> Tensor:
        """Gradient of each row's loss [B] with respect to its z; one product by image through network and decoder.

        `encoded`: through the encoder too (gluing).
        """
        self.cost.vjps += len(z)
        self.cost.decoder_vjps += len(z) if self.prior.latent else 0
        self.cost.encoder_vjps += len(z) if self.prior.latent and encoded else 0
        return torch.autograd.grad(loss.sum(), z)[0]

    def data_gradient(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """(gradient of |y - A D(z0)|^2 / 2, residual): through the decoder alone, the network is not asked."""
        with torch.enable_grad():
            z0 = z0.detach().requires_grad_()
            residual = self.misfit(self.decode(z0))
            loss = 0.5 * residual.flatten(1).square().sum(1)
            self.cost.decoder_vjps += len(z0) if self.prior.latent else 0
            return torch.autograd.grad(loss.sum(), z0)[0], residual.detach()

    def misfit(self, x: Tensor) -> Tensor:
        """y - A x, [B, *measured]."""
        return self.y - self.operator(x)

    def ratio(self, residual: Tensor) -> Tensor:
        """|y - A x| / (sigma sqrt(m)) by row, float64[B]: near 1 where nothing but noise is left."""
        seen = self.operator(residual) if self.operator.masks else residual
        size: Tensor = seen.detach().flatten(1).double().norm(dim=1)
        return size / float(self.sigma * self.operator.size**0.5)


def check_sigma(sigma: float) -> None:
    """Raises ConfigError where the noise of measurements cannot be."""
    if not 0 < sigma < float("inf"):
        raise ConfigError(
            f"noise of standard deviation {sigma:g} in the measurements",
            "above 0: posterior samplers weigh data by 1 / sigma^2",
            "give a small one where there is next to none, such as 0.01",
        )


def size_of(residual: Tensor, kind: str) -> Tensor:
    """Of each row by itself, [B]: |r|^2 ("squared"), or |r| ("norm", whose gradient at 0 is 0)."""
    square = residual.flatten(1).square().sum(1)
    if kind == "squared":
        return square
    return square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()
