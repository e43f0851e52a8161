"""f-divergences D_f(p||q) = E_{x~q} f(p(x)/q(x)), and the weight h(r) = r^2 f''(r) of their gradient.

Source: Xu, Nie and Vahdat 2025 (arXiv 2502.15681), table 1. p is the teacher, q the student, r = p/q > 0, f convex with
f(1) = 0: "forward KL" is KL(teacher||student), f = r log r. With x_t = alpha_t G(z) + sigma_t eps,

    grad D_f(p_t||q_t) = -E[ h(r_t(x_t)) (score_p - score_q)(x_t, t) . d x_t ].

Adding c (r - 1) to f changes neither. Everything is computed from log r, which a discriminator gives directly and which
neither overflows nor cancels: h is right to a few units in the last place of log r for any float32 r, and where h
itself is beyond the type's range it is the largest number of the type, never inf. Shapes: any, element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.registry import Registry

Elementwise = Callable[[Tensor], Tensor]

PROBED = (-6.0, 6.0, 241)
"""Where log r is looked at to find whether a given f is convex: from, to, how many."""


@dataclass(frozen=True)
class Divergence:
    """One f-divergence.

    Args:
        name: as configurations have it.
        f_of_log: log r -> f(r); a ratio of 0 or infinity (log r = -inf, inf) may give inf or NaN.
        h_of_log: log r in [-inf, inf] -> h(r) = r^2 f''(r) >= 0.
    """

    name: str
    f_of_log: Elementwise
    h_of_log: Elementwise

    def f(self, r: Tensor) -> Tensor:
        """f(r) for r in (0, inf)."""
        return self.f_of_log(r.log())

    def h(self, r: Tensor) -> Tensor:
        """h(r) = r^2 f''(r) for r in [0, inf]."""
        return self.h_of_log(r.log())


def _exp(x: Tensor) -> Tensor:
    """e^x, at most the largest number of the type."""
    return x.exp().clamp(max=torch.finfo(x.dtype).max)


def _sf(log_r: Tensor) -> Tensor:
    """(r + 1) log(1/2 + 1/(2r))."""
    return (1 + log_r.exp()) * (F.softplus(-log_r) - math.log(2))


def _js(log_r: Tensor) -> Tensor:
    """r log r - (r + 1) log((r + 1)/2), as r log(2r/(r + 1)) - log((r + 1)/2)."""
    return log_r.exp() * (math.log(2) + F.logsigmoid(log_r)) + math.log(2) - F.softplus(log_r)


DIVERGENCES = Registry(
    "divergence",
    {
        "rkl": Divergence("rkl", lambda x: -x, torch.ones_like),
        "sf": Divergence("sf", _sf, lambda x: torch.sigmoid(-x)),
        "js": Divergence("js", _js, torch.sigmoid),
        "sh": Divergence("sh", lambda x: -torch.expm1(x / 2), lambda x: _exp(x / 2) / 4),
        "kl": Divergence("kl", lambda x: x.exp() * x, _exp),
        "jf": Divergence("jf", lambda x: torch.expm1(x) * x, lambda x: 1 + _exp(x)),
        "neyman": Divergence("neyman", lambda x: torch.expm1(-x) / 2, lambda x: _exp(-x)),
        "pearson": Divergence("pearson", lambda x: torch.expm1(x).square() / 2, lambda x: _exp(2 * x)),
    },
)
"""Reverse KL (h = 1: DMD2), softened reverse KL, Jensen-Shannon (twice it), squared Hellinger, forward KL, Jeffreys,
Neyman and Pearson chi^2; from mode-seeking to mode-covering: neyman, rkl, sf, js, sh, kl, jf, pearson."""


def alpha_divergence(alpha: float) -> Divergence:
    """h = r^alpha, f'' = r^(alpha - 2), f(1) = f'(1) = 0.

    alpha = -1: Neyman, 0: reverse KL, 1/2: Hellinger (4 times), 1: forward KL, 2: Pearson. Larger covers more modes.

    Raises:
        ConfigError: alpha is not finite.
    """
    if not math.isfinite(alpha):
        raise ConfigError(f"alpha={alpha} of the alpha divergence", "a finite number", "take one from -1 to 2")

    def power(log_r: Tensor, exponent: float) -> Tensor:
        """(r^exponent - 1) / exponent, log r in the limit."""
        return torch.expm1(exponent * log_r) / exponent if exponent else log_r

    def f(log_r: Tensor) -> Tensor:
        # (r^a - 1 - a (r - 1)) / (a (a - 1)), whose differences vanish near a = 0 and a = 1: each has its own form.
        if abs(alpha) < 0.5:
            return (power(log_r, alpha) - torch.expm1(log_r)) / (alpha - 1)
        return (log_r.exp() * power(log_r, alpha - 1) - torch.expm1(log_r)) / alpha

    if alpha == 0:
        return Divergence("alpha(0)", f, torch.ones_like)  # 0 times an infinite log r is not a number
    return Divergence(f"alpha({alpha:g})", f, lambda x: _exp(alpha * x))


def divergence_of(f: Elementwise, name: str = "given") -> Divergence:
    """The divergence of a given f(r), with h by automatic differentiation in float64.

    Args:
        f: convex, twice differentiable for r > 0, element by element, f(1) = 0.
        name: for messages.

    Raises:
        ConfigError: f(1) is not 0, or f is not convex between r = e^-6 and e^6.
    """

    def h_of_log(log_r: Tensor) -> Tensor:
        r = log_r.detach().double().exp()
        return (r.square() * _second_derivative(f, r)).to(log_r.dtype)

    found = Divergence(name, lambda log_r: f(log_r.exp()), h_of_log)
    start, end, count = PROBED
    _check(found, torch.linspace(start, end, count, dtype=torch.float64))
    return found


def _second_derivative(f: Elementwise, r: Tensor) -> Tensor:
    with torch.enable_grad():
        r = r.detach().requires_grad_()
        first = _slope(f(r), r)
        return _slope(first, r).detach()


def _slope(values: Tensor, r: Tensor) -> Tensor:
    """d values / d r element by element; 0 where they do not depend on r (f linear, f' constant)."""
    if not values.requires_grad:
        return torch.zeros_like(r)
    (found,) = torch.autograd.grad(values.sum(), r, create_graph=True, allow_unused=True)
    return torch.zeros_like(r) if found is None else found


def _check(divergence: Divergence, log_r: Tensor) -> None:
    at_one = float(divergence.f_of_log(torch.zeros(1, dtype=torch.float64))[0])
    if not abs(at_one) <= 1e-9:
        raise ConfigError(
            f"the function f of the divergence {divergence.name!r} has f(1)={at_one:.6g}",
            "f(1) = 0, so that equal densities have no divergence",
            "subtract f(1) from it",
        )
    weights = divergence.h_of_log(log_r)
    wrong = ~(weights >= -1e-9 * weights.abs().max())
    if bool(wrong.any()):
        raise ConfigError(
            f"the function f of the divergence {divergence.name!r} has r^2 f''(r)={float(weights[wrong][0]):.4g} "
            f"at r={float(log_r[wrong][0].exp()):.4g}",
            "a convex function, f'' >= 0, with finite second derivatives",
            "take another f",
        )
