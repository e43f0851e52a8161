"""A P2L-style sampler: reconstructed from memory of the paper (no code was released), and so never called P2L.

Each step: every now and then the image of z0 is brought near the data by conjugate gradients and encoded again; DDIM;
a gradient step on |y - A D(z0)|. The tuning of a text's embedding, half of the paper's cost, is left out here: the
priors that all methods share have no text to tune.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.stsl.levels import Level, clean, ddim_step
from generative.methods.stsl.operators.base import conjugate_gradients
from generative.methods.stsl.problem import Problem, size_of
from generative.methods.stsl.walk import Restored, start, walk


@dataclass(frozen=True)
class P2LStyle:
    """How it samples.

    Args:
        steps: T.
        rho: of the gradient of the norm.
        every: steps between corrections by conjugate gradients.
        near: weight of |x - D(z0)|^2 / 2 against |y - A x|^2 / 2 there.
        solver_steps: of conjugate gradients.
    """

    steps: int = 1000
    rho: float = 1.0
    every: int = 3
    near: float = 1.0
    solver_steps: int = 5


def p2l_style(problem: Problem, settings: P2LStyle) -> Restored:
    """Sample; raises ConfigError for an operator that is not linear."""
    adjoint = problem.operator.adjoint
    if adjoint is None:
        raise ConfigError(f"p2l_style with {problem.operator.name}", "a linear operator", "use stsl, dps or psld")
    levels = problem.prior.levels(settings.steps)

    def step(part: Problem, z: Tensor, number: int, level: Level, target: Level) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            e = part.noise(z, level)
            z0 = clean(z, e, level)
            x = part.decode(z0)
            residual = part.misfit(x)
            gradient = part.gradient(size_of(residual, "norm"), z)
        with torch.no_grad():
            if number % settings.every == 0:
                z0 = part.encode(corrected(part, x.detach(), settings))
            return ddim_step(z0, e, level, target, 0.0, None) - settings.rho * gradient, part.ratio(residual)

    return walk(problem, start(problem, levels, "noise"), levels, step)


def corrected(problem: Problem, x: Tensor, settings: P2LStyle) -> Tensor:
    """argmin over x' of |y - A x'|^2 / 2 + near |x' - x|^2 / 2."""
    operator, adjoint = problem.operator, problem.operator.adjoint
    assert adjoint is not None
    target = adjoint(problem.y) + settings.near * x
    return conjugate_gradients(lambda v: adjoint(operator(v)) + settings.near * v, target, settings.solver_steps, 1e-6)
