"""Hard data consistency: AdamW on an image or a latent until it explains the measurement, each row by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.methods.stsl.problem import Problem


def optimised(problem: Problem, z0: Tensor, rate: float, most: int, enough: float, pixels: bool = False) -> Tensor:
    """Minimise |y - A D(z0)|^2 / m (`pixels`: |y - A z0|^2 / m) from z0.

    Args:
        problem: of these rows.
        z0: where to start.
        rate: of AdamW.
        most: iterations.
        enough: mean square of the residual at which a row stays as it is.
        pixels: whether z0 are images.
    """
    found = z0.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([found], lr=rate)
    for _ in range(most):
        with torch.enable_grad():
            residual = problem.misfit(found if pixels else problem.decode(found)).flatten(1)
            loss = residual.square().mean(1)
        open_rows = loss.detach() > enough
        if not bool(open_rows.any()):
            break
        if problem.prior.latent and not pixels:
            problem.cost.decoder_vjps += len(found)
        found.grad = torch.autograd.grad(loss.sum(), found)[0]
        before = found.detach().clone()
        optimizer.step()
        with torch.no_grad():
            found[~open_rows] = before[~open_rows]
    return found.detach()
