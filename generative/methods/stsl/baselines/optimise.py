"""Hard data consistency: AdamW on an image or a latent until it explains the measurement, each row by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.methods.stsl.problem import Problem


def optimised(
    problem: Problem,
    z0: Tensor,
    rate: float,
    most: int,
    enough: float,
    pixels: bool = False,
    patience: int | None = None,
) -> Tensor:
    """Minimise |y - A D(z0)|^2 / m (`pixels`: |y - A z0|^2 / m) from z0.

    Args:
        problem: of these rows.
        z0: where to start.
        rate: of AdamW.
        most: iterations.
        enough: mean square of the residual at which a row stays as it is.
        pixels: whether z0 are images.
        patience: a row also stays as it is once its loss was lower so many iterations ago; None: no such end.
    """
    found = z0.detach().clone().requires_grad_()
    optimizer = torch.optim.AdamW([found], lr=rate)
    told: list[Tensor] = []
    open_rows = torch.ones(len(found), dtype=torch.bool, device=found.device)
    for i in range(most):
        with torch.enable_grad():
            residual = problem.misfit(found if pixels else problem.decode(found)).flatten(1)
            loss = residual.square().mean(1)
        told.append(loss.detach())
        open_rows = open_rows & (told[i] > enough)
        if patience is not None and i >= patience:
            open_rows = open_rows & (told[i] <= told[i - patience])
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
