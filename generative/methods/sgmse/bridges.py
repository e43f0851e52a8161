"""Bridges from the clean spectrogram to the noisy one: BBED (pinned at t = 1) and SBVE (pinned at T).

Sources: Lay et al. 2023 (arXiv 2302.14748); Jukic et al. 2024 (arXiv 2407.16074) and the released code of SGMSE. See
`processes` for what all share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.processes import Process, check_times


@dataclass(frozen=True)
class BBED(Process):
    """Brownian bridge with exponential diffusion: pull 1/(1 - t), a = 1 - t, g = sqrt(theta) k^t.

    std^2 = (1-t) theta [k^(2t) - 1 + t + 2 k^2 ln k (1-t) (Ei(-2 (1-t) ln k) - Ei(-2 ln k))]. The bridge ends in y at
    t = 1, where the pull has no bound: T is below 1.

    Args:
        k: in (1, 10].
        theta: above 0.
        t_eps: least time.
        T: where sampling starts, below 1.
    """

    k: float = 2.6
    theta: float = 0.52
    t_eps: float = 0.03
    T: float = 0.999

    def __post_init__(self) -> None:
        check_times(self)
        if not 1 < self.k <= 10 or self.theta <= 0 or self.T >= 1:
            raise ConfigError(
                f"BBED with k={self.k}, theta={self.theta}, T={self.T}",
                expected="1 < k <= 10, theta > 0 and T < 1",
                remedy="take 2.6, 0.52 and 0.999",
            )

    def signal(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t.double()

    def std(self, t: Tensor) -> Tensor:
        """See the class, with Ei(-x) = gamma + ln x + sum over n of (-x)^n / (n n!) subtracted term by term.

        ln k > 0 is moderate, so that the sum has about 20 terms and a dozen exact digits also at t near 0 and 1.
        """
        log_k, t = math.log(self.k), t.double()
        left = 1 - t
        series = torch.zeros_like(t)
        for order, coefficient in enumerate(_ei_coefficients(2 * log_k), start=1):
            series = series + coefficient * torch.expm1(torch.special.xlog1py(float(order), -t))
        # (1-t) times the difference of Ei; xlog1py is 0 at t = 1, where the logarithm is not finite.
        difference = torch.special.xlog1py(left, -t) + left * series
        bracket = torch.expm1(2 * log_k * t) + t + 2 * self.k**2 * log_k * difference
        variance: Tensor = left * self.theta * bracket
        return variance.sqrt()

    def pull(self, t: Tensor) -> Tensor:
        """1 / (1 - t)."""
        return 1 / (1 - t.double())

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        return math.sqrt(self.theta) * torch.exp(math.log(self.k) * t.double())


@dataclass(frozen=True)
class SBVE(Process):
    """Schroedinger bridge between x0 and y with exploding variance: g = sqrt(c) k^t.

    sigma_t^2 = c (k^(2t) - 1) / (2 ln k), sigma_bar^2 = sigma_T^2 - sigma_t^2 + eps, a = sigma_bar^2 / (sigma_T^2 +
    eps), std = sigma_bar sigma_t / (sigma_T + eps). The unpinned process has no drift; given y it has the one here,
    pull = g^2 / sigma_bar^2. The weight of y in the released code is a factor 1 + eps off 1 - a, below rounding.

    Args:
        k: above 1.
        c: above 0.
        eps: keeps what would be 0 at T away from it.
        t_eps: least time; released models are trained from 0.03 and yet sampled down to 1e-4.
        T: end of time.
    """

    k: float = 2.6
    c: float = 0.4
    eps: float = 1e-8
    t_eps: float = 1e-4
    T: float = 1.0

    def __post_init__(self) -> None:
        check_times(self)
        if self.k <= 1 or self.c <= 0 or self.eps <= 0:
            raise ConfigError(
                f"SBVE with k={self.k}, c={self.c}, eps={self.eps}",
                expected="k > 1, c > 0 and eps > 0",
                remedy="take 2.6, 0.4 and 1e-8",
            )

    def sigma(self, t: Tensor) -> Tensor:
        """sigma_t, from 0."""
        return self._root(torch.expm1(2 * math.log(self.k) * t.double()))

    def sigma_bar(self, t: Tensor) -> Tensor:
        """sigma_bar_t, down to sqrt(eps) at T; not as a difference of squares, which would lose digits there."""
        log_k, t = math.log(self.k), t.double()
        left = self._root(torch.exp(2 * log_k * t) * torch.expm1(2 * log_k * (self.T - t)))
        return (left.square() + self.eps).sqrt()

    @property
    def sigma_end(self) -> float:
        """sigma_T."""
        return self.sigma(torch.tensor(self.T)).item()

    def signal(self, t: Tensor) -> Tensor:
        """a(t)."""
        return self.sigma_bar(t).square() / (self.sigma_end**2 + self.eps)

    def std(self, t: Tensor) -> Tensor:
        """sigma_bar sigma_t / (sigma_T + eps)."""
        return self.sigma_bar(t) * self.sigma(t) / (self.sigma_end + self.eps)

    def pull(self, t: Tensor) -> Tensor:
        """g^2 / sigma_bar^2."""
        return (self.diffusion(t) / self.sigma_bar(t)).square()

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t)."""
        return math.sqrt(self.c) * torch.exp(math.log(self.k) * t.double())

    def prior(self, y: Tensor, noise: Tensor, start: float | None = None) -> Tensor:
        """y itself at T, where the bridge is pinned; y + std(start) z before."""
        return y if start is None or start == self.T else super().prior(y, noise, start)

    def _root(self, grown: Tensor) -> Tensor:
        return (self.c * grown / (2 * math.log(self.k))).sqrt()


def _ei_coefficients(x: float) -> list[float]:
    """(-x)^n / (n n!) for n = 1, 2, ... until they no longer count beside 1 in float64."""
    terms: list[float] = []
    power, order = 1.0, 0
    while order < x or abs(power) > 1e-18:
        order += 1
        power *= -x / order
        terms.append(power / order)
    return terms
