"""The functional forms of scaling laws and what follows from them in closed form.

Sources: Hoffmann et al. 2022 eq. 2 and 4; Henighan et al. 2020 eq. 1.1; Kaplan et al. 2020 eq. 1.5 and 1.6; Gadre et
al. 2024. All functions work on arrays of any shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

PF_DAY = 8.64e19
"""FLOPs of one petaflop/s-day."""


@dataclass(frozen=True)
class Surface:
    """L(N, D) = E + A / N^alpha + B / D^beta. Fields may be arrays, one entry a bootstrap draw.

    The compute-optimal frontier under C = k N D has N_opt ~ C^a with a = beta / (alpha + beta): set by beta, not alpha.
    """

    E: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any

    def loss(self, N: ArrayLike, D: ArrayLike) -> Any:
        """Nats per token."""
        return self.E + self.A * np.asarray(N) ** -self.alpha + self.B * np.asarray(D) ** -self.beta

    @property
    def scale(self) -> Any:
        """(alpha A / (beta B))^(1 / (alpha + beta)), the scale of N_opt."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    @property
    def a(self) -> Any:
        """Exponent of N_opt(C)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> Any:
        """Exponent of D_opt(C)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def gamma(self) -> Any:
        """Exponent of L_opt(C) - E, positive."""
        return self.alpha * self.beta / (self.alpha + self.beta)

    def optimum(self, C: ArrayLike, k: float = 6.0) -> tuple[Any, Any, Any]:
        """N_opt, D_opt and L_opt of budgets C = k N D."""
        pairs = np.asarray(C) / k
        N, D = self.scale * pairs**self.a, pairs**self.b / self.scale
        return N, D, self.loss(N, D)


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = floor + (x0 / x)^exponent. `exponent` is positive where the loss falls."""

    floor: Any
    x0: Any
    exponent: Any

    def __call__(self, x: ArrayLike) -> Any:
        """The loss at x."""
        return self.floor + (self.x0 / np.asarray(x)) ** self.exponent

    def inverse(self, loss: ArrayLike) -> Any:
        """The x that reaches a loss; NaN at or below the floor."""
        reducible = np.asarray(loss, dtype=np.float64) - self.floor
        return self.x0 * np.where(reducible > 0, reducible, math.nan) ** (-1 / self.exponent)


def kaplan_joint(N: ArrayLike, D: ArrayLike, *, Nc: float, Dc: float, alpha_N: float, alpha_D: float) -> Any:
    """[(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D, no constant (Kaplan eq. 1.5)."""
    return ((Nc / np.asarray(N)) ** (alpha_N / alpha_D) + Dc / np.asarray(D)) ** alpha_D


def kaplan_steps(N: ArrayLike, S_min: ArrayLike, *, Nc: float, Sc: float, alpha_N: float, alpha_S: float) -> Any:
    """(Nc / N)^alpha_N + (Sc / S_min)^alpha_S: the learning curve over steps at infinite batch (Kaplan eq. 1.6)."""
    return (Nc / np.asarray(N)) ** alpha_N + (Sc / np.asarray(S_min)) ** alpha_S


def overtrained(a: float, b: float, c: float, E: float) -> Surface:
    """Gadre's L(N, M) = a N^b + c 6^(b/2) (M N)^b + E, with M = D / N and b < 0, as a surface with one exponent."""
    return Surface(E=E, A=a, B=c * 6 ** (b / 2), alpha=-b, beta=-b)


def kaplan_frontier(L_N: PowerLaw, gamma: float) -> float:
    """Exponent of N_opt(C) that L(N) and L(C) ~ C^-gamma imply together: gamma / alpha_N."""
    return float(gamma / L_N.exponent)
