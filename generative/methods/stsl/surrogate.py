"""The surrogate loss of STSL (eq. 4) and its forms: data term, and the trace of the Hessian by one probe.

L(y, z) = weight |y - A D(z0(z))|^2 + (eta / d) u^T (s(z + u) - s(z)), minimised over z. A flipped sign of the second
term would seek larger posterior covariance. Losses are sums by row, so that no image feels its batch.

| probe | term, with e the noise, b its level, h = c b |
|---|---|
| unit | -(eta / (d b)) u^T [e(z + u) - e(z)]: eq. 4 as it is written |
| scaled | -(eta / (c d)) u^T [e(z + h u) - e(z)] = (eta / d) b^2 tr H of log p smoothed by h |
| central | -(eta / (2 c d)) u^T [e(z + h u) - e(z - h u)] |
| jvp | -(eta b / d) u^T (de/dz) u, the limit of h = 0 |
| measurement | eta weight (b^4 / a^2) w^T H w, w = (A D)^T u, u in measurement space: the bound itself at eta = 1 |

All points go through the network in one call, and one backward pass gives the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from generative.methods.stsl.levels import Level, clean
from generative.methods.stsl.operators.base import expand, row_dot
from generative.methods.stsl.problem import Problem, size_of

Probe = Literal["unit", "scaled", "central", "jvp", "measurement"]
PROBES: tuple[Probe, ...] = ("unit", "scaled", "central", "jvp", "measurement")


@dataclass(frozen=True)
class Terms:
    """What is in the loss.

    Args:
        weight: of the data term: lambda ("squared": 1 / (2 sigma^2) in theory) or zeta ("norm").
        data_loss: squared, or the norm itself, whose step does not depend on scales.
        eta: of the trace term; 0: none, and no rows are spent on it (the first-order sampler).
        probe: form of the trace term.
        probe_size: c, of all forms but unit and jvp.
        probes: averaged, each a further row (central: two).
        glue_weight: of PSLD's |E(A^+ y + x - A^+ A x) - z0| (not in eq. 4).
        extra: further loss of decoded images, [B, ...] -> [B] (contrastive term of editing).
        extra_weight: nu, divided by d.
    """

    weight: float = 1.0
    data_loss: Literal["squared", "norm"] = "norm"
    eta: float = 0.0
    probe: Probe = "scaled"
    probe_size: float = 0.1
    probes: int = 1
    glue_weight: float = 0.0
    extra: Callable[[Tensor], Tensor] | None = None
    extra_weight: float = 0.0


@dataclass(frozen=True)
class Surrogate:
    """The loss at z.

    Args:
        loss: [B].
        data: |r|^2 or |r|, [B].
        trace: the second-order term with its weight, [B].
        ratio: |r| / (sigma sqrt(m)), float64[B].
        z0: Tweedie's mean.
    """

    loss: Tensor
    data: Tensor
    trace: Tensor
    ratio: Tensor
    z0: Tensor


def surrogate(problem: Problem, z: Tensor, level: Level, terms: Terms, step: int) -> Surrogate:
    """The loss at z, which must require a gradient; `step`: address of the probes."""
    e, spread = _noise_and_trace(problem, z, level, terms, step)
    z0 = clean(z, e, level)
    x = problem.decode(z0)
    residual = problem.misfit(x)
    data = size_of(residual, terms.data_loss)
    trace = spread(z0, residual)
    loss = terms.weight * data + trace
    if terms.glue_weight:
        loss = loss + terms.glue_weight * size_of(problem.encode(glued(problem, x)) - z0, "norm")
    if terms.extra is not None and terms.extra_weight:
        loss = loss + terms.extra_weight / z[0].numel() * terms.extra(x)
    return Surrogate(loss, data, trace, problem.ratio(residual), z0)


def glued(problem: Problem, x: Tensor) -> Tensor:
    """A^+ y + (x - A^+ A x): the image with its measured part put right (PSLD)."""
    back = problem.operator.pseudo_inverse
    return x if back is None else back(problem.y) + x - back(problem.operator(x))


_Spread = Callable[[Tensor, Tensor], Tensor]
"""(z0, residual) -> trace term [B]."""


def _noise_and_trace(problem: Problem, z: Tensor, level: Level, terms: Terms, step: int) -> tuple[Tensor, _Spread]:
    """e(z), and the trace term as a function of what follows from it."""
    if not terms.eta:
        return problem.noise(z, level), lambda z0, residual: torch.zeros_like(residual.flatten(1)[:, 0])
    if terms.probe == "measurement":
        return _measured(problem, z, level, terms, step)
    count, size = terms.probes, z[0].numel()
    u = [problem.draws("probe", step * count + i, z.shape[1:]).to(z) for i in range(count)]
    if terms.probe == "jvp":
        with sdpa_kernel([SDPBackend.MATH]):  # attention's fast kernels have no second derivative
            e = problem.noise(z, level)
        # u^T (de/dz) u by the transpose: the forward derivatives of some layers refuse what attention hands them
        moved = [torch.autograd.grad(e, z, one, create_graph=True)[0] for one in u]
        problem.cost.vjps += count * len(z)
        scale = level.noise
    else:
        h = 1.0 if terms.probe == "unit" else terms.probe_size * level.noise
        central = terms.probe == "central"
        points = [z, *(z + h * one for one in u), *(z - h * one for one in u if central)]
        e, *others = problem.noise(torch.cat(points), level).chunk(len(points))
        below = others[count:] if central else [e] * count
        moved = [above - low for above, low in zip(others, below, strict=False)]
        scale = 1 / level.noise if terms.probe == "unit" else 1 / (terms.probe_size * (1 + central))
    trace = -(terms.eta * scale / (size * count)) * torch.stack([row_dot(a, b) for a, b in zip(u, moved, strict=True)])
    return e, lambda z0, residual: trace.sum(0)


def _measured(problem: Problem, z: Tensor, level: Level, terms: Terms, step: int) -> tuple[Tensor, _Spread]:
    """Probes along (A D)^T u. D is linearised at Tweedie's mean of z, so that the network is called twice."""
    e = problem.noise(z, level)

    def spread(z0: Tensor, residual: Tensor) -> Tensor:
        weight = torch.full_like(residual.flatten(1)[:, 0], terms.weight)
        if terms.data_loss == "norm":
            # grad |r| = grad |r|^2 / (2 |r|): the bound's ratio of both terms is kept
            weight = weight / (2 * size_of(residual.detach(), "norm"))
        along = [_towards(problem, z0, terms.probes * step + i) for i in range(terms.probes)]
        tiny = torch.finfo(z.dtype).tiny  # where the operator is flat there is no way to go
        sizes = [w.flatten(1).norm(dim=1).clamp(min=tiny**0.5) for w in along]
        h = [terms.probe_size * level.noise * z[0].numel() ** 0.5 / size for size in sizes]
        points = [z + expand(step_size, z) * w for step_size, w in zip(h, along, strict=True)]
        total = torch.zeros_like(weight)
        for w, step_size, other in zip(
            along, h, problem.noise(torch.cat(points), level).chunk(len(points)), strict=True
        ):
            total = total - row_dot(w, other - e) / (step_size * level.noise)
        return terms.eta * weight * (level.noise**4 / level.signal**2) * total / terms.probes

    return e, spread


def _towards(problem: Problem, z0: Tensor, step: int) -> Tensor:
    """(dA(D(z0))/dz0)^T u, a constant."""
    u = problem.draws("probe", step, problem.operator.measured).to(z0)
    fixed = z0.detach()
    if problem.operator.adjoint is not None and not problem.prior.latent:
        return problem.operator.adjoint(u)
    fixed.requires_grad_()
    problem.cost.decoder_vjps += len(z0) if problem.prior.latent else 0
    with torch.enable_grad():
        return torch.autograd.grad(problem.operator(problem.decode(fixed)), fixed, u)[0]
