"""Times at which teacher and student are compared: random places on the grid of Karras et al. 2022 (arXiv 2206.00364).

In EDM's process x_t = x + t eps, a time is the noise's standard deviation. Times are float64 throughout: neighbours on
the grid differ by less than bf16 or fp16 can tell, and the bins of density ratios depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.randomness import Streams


@dataclass(frozen=True)
class TimeGrid:
    """sigma_i = (min^(1/rho) + i/(n - 1) (max^(1/rho) - min^(1/rho)))^rho, i = 0 .. n - 1, from small to large.

    Args:
        sigma_min: smallest, above 0.
        sigma_max: largest.
        rho: how much denser the grid is at small noise; 7 as published.
        size: n, at least 2.
        first: lowest index that is drawn (2 in the released f-distill, 20 in DMD2).
        last: highest index that is drawn, included (998; 980 in DMD2).
        table: the times themselves, `size` of them, ascending, of a teacher that knows no others; (): the formula's.

    Raises:
        ConfigError: bounds that leave no grid, or no index to draw.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    size: int = 1000
    first: int = 2
    last: int = 998
    table: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                f"times from sigma_min={self.sigma_min} to sigma_max={self.sigma_max}",
                "0 < sigma_min < sigma_max",
                "give the teacher's range of noise",
            )
        if not 0 <= self.first <= self.last < self.size or self.size < 2:
            raise ConfigError(
                f"indices {self.first} to {self.last} of a grid of {self.size} times",
                "0 <= first <= last < size",
                "correct the range of indices",
            )

    @cached_property
    def sigmas(self) -> Tensor:
        """The grid, float64[n], on the CPU."""
        if self.table:
            return torch.tensor(self.table, dtype=torch.float64)
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        places = torch.arange(self.size, dtype=torch.float64) / (self.size - 1)
        sigmas: Tensor = (low + places * (high - low)) ** self.rho
        return sigmas

    def draw(self, streams: Streams, ids: Tensor, name: str = "t") -> Tensor:
        """A time for each sample id, uniform over the indices first .. last: float64[B] on the device of `ids`."""
        index = self.first + streams.integers(name, ids, self.last - self.first + 1)
        return self.sigmas.to(index.device)[index]

    def linear_edges(self, bins: int) -> Tensor:
        """Inner borders of bins of equal width in t, float64[bins - 1] (released code); in the index of a table."""
        if self.table:
            return self.quantile_edges(bins)
        return torch.linspace(self.sigma_min, self.sigma_max, bins + 1, dtype=torch.float64)[1:-1]

    def quantile_edges(self, bins: int) -> Tensor:
        """Inner borders of bins with equal shares of what is drawn: index i is in bin floor((i - first) bins / count).

        A border lies (in geometric mean) between the two times beside it, so that rounding moves no time across.
        Indices that are not drawn are in the bins at the ends. Of fewer times than bins, each is a bin.

        Returns:
            float64[min(bins, count) - 1].
        """
        count = self.last - self.first + 1
        bins = min(bins, count)
        # The first index of bin k is the smallest with (i - first) bins >= k count.
        starts = torch.tensor([self.first - (-k * count // bins) for k in range(1, bins)], dtype=torch.long)
        return (self.sigmas[starts - 1] * self.sigmas[starts]).sqrt()

    def borders(self, edges: Tensor) -> Tensor:
        """Borders of all bins between which `edges` float64[n - 1] lie, ascending, float64[n + 1].

        The outer ones are the first and the last time drawn, or those of the grid where bins begin beyond these.
        """
        drawn, grid = self.sigmas[[self.first, self.last]], self.sigmas[[0, -1]]
        within = self.first < self.last and bool(((drawn[0] < edges) & (edges < drawn[1])).all())
        low, high = (drawn if within else grid).view(2, 1)
        return torch.cat([low, edges, high])


def noised(x: Tensor, noise: Tensor, t: Tensor, alpha: Tensor | None = None) -> Tensor:
    """x_t = alpha x + t noise in float64, cast back to the type of x, which takes the gradient.

    Args:
        x: samples [B, ...].
        noise: N(0, 1) of the same shape.
        t: float64[B], standard deviations.
        alpha: float64[B], what remains of x; None: 1 (EDM).
    """
    ends = (-1, *[1] * (x.dim() - 1))
    kept = x.double() if alpha is None else alpha.double().view(ends) * x.double()
    return (kept + t.double().view(ends) * noise.double()).to(x.dtype)
