"""Covariance-aware guidance (MMPS): p(y | z) as a Gaussian with the moments of Tweedie's formulas.

r = y - A z0, V = sigma^2 I + A C A^T, C = (b^2 / a) dz0/dz = Cov[z0 | z]; guidance (dz0/dz)^T A^T V^-1 r. V^-1 r comes
from conjugate gradients, one vector-Jacobian product a step (C is symmetric). Exact for Gaussian priors. A decoder or
an operator that is not linear is linearised at z0.

The Jacobian of a trained network is only nearly symmetric and positive, while V is at least sigma^2 I. Where it says
less than that of a direction, conjugate gradients end: going on, steps grow without bound, and images with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from generative.methods.stsl.levels import Level, clean
from generative.methods.stsl.operators.base import conjugate_gradients
from generative.methods.stsl.problem import Problem


@dataclass(frozen=True)
class Guided:
    """Guidance at z: `score` ~ grad log p(y | z), noise e, Tweedie's mean, and the residual ratio."""

    score: Tensor
    noise: Tensor
    z0: Tensor
    ratio: Tensor


Guidance = Callable[[Problem, Tensor, Level], Guided]

ROUNDING = 0.99
"""Of sigma^2: where C vanishes, V has no other eigenvalue, up to rounding."""


@dataclass(frozen=True)
class _Linear:
    """A D at a point, linearised: forward and transposed."""

    apply: Callable[[Tensor], Tensor]
    transpose: Callable[[Tensor], Tensor]


def mmps(problem: Problem, z: Tensor, level: Level, solver_steps: int = 5, tolerance: float = 1e-6) -> Guided:
    """Covariance-aware guidance at z.

    Args:
        problem: whose operator may be non-linear.
        z: [B, ...].
        level: of z.
        solver_steps: of conjugate gradients at most, each one product through the network; min(m, d) are exact.
        tolerance: of V v - r, relative.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        e = problem.noise(z, level)
        z0 = clean(z, e, level)
        x, linear = _linearised(problem, z0.detach())
    residual = problem.misfit(x)
    scale = level.noise**2 / level.signal

    def back(v: Tensor) -> Tensor:
        """(dz0/dz)^T v."""
        problem.cost.vjps += len(z)
        return torch.autograd.grad(z0, z, v, retain_graph=True)[0]

    def product(v: Tensor) -> Tensor:
        return problem.sigma**2 * v + scale * linear.apply(back(linear.transpose(v)))

    v = conjugate_gradients(product, residual, solver_steps, tolerance, ROUNDING * problem.sigma**2)
    score = back(linear.transpose(v))
    return Guided(score, e.detach(), z0.detach(), problem.ratio(residual))


def _linearised(problem: Problem, z0: Tensor) -> tuple[Tensor, _Linear]:
    """The image at z0 and the derivative of A D there."""
    operator = problem.operator
    if operator.adjoint is not None and not problem.prior.latent:
        return z0, _Linear(operator, operator.adjoint)
    fixed = z0.requires_grad_()
    # attention's fast kernels have no second derivative, which `turned` needs
    with sdpa_kernel([SDPBackend.MATH]):
        x = problem.decode(fixed)
    y = operator(x)
    dummy = torch.zeros_like(y).requires_grad_()
    # y^T w is linear in w: its derivative by w along v is the derivative of y along v
    turned = torch.autograd.grad(y, fixed, dummy, create_graph=True)[0]
    problem.cost.decoder_vjps += len(y) if problem.prior.latent else 0

    def transpose(w: Tensor) -> Tensor:
        problem.cost.decoder_vjps += len(w) if problem.prior.latent else 0
        return torch.autograd.grad(y, fixed, w, retain_graph=True)[0]

    def apply(v: Tensor) -> Tensor:
        problem.cost.decoder_vjps += len(v) if problem.prior.latent else 0
        return torch.autograd.grad(turned, dummy, v, retain_graph=True)[0]

    return x.detach(), _Linear(apply, transpose)
