"""Logits made honest: logistic recalibration of the discriminator's logit within each bin of times.

Density ratios are exp(l) only where l is the true log-odds. A discriminator that is behind the student or too sure of
itself has the right order and the wrong scale, so that l' = a l + b is fitted in each bin by the logistic loss (Platt
1999), on samples that the discriminator has not been trained on yet: those of its own update, before the step.

The fit follows the discriminator: Newton's method on a sum over all batches in which those of n updates ago count
memory^n, beside a pull towards a = 1, b = 0. All sums are over the valid samples of all ranks, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.method import Collectives
from generative.methods.f_distill.further_config import RecalibrationConfig

FITS, CURVATURES = "calibration", "calibration_curvature"

LARGEST_STEP = 0.5
"""Of slope and offset in an update: where all logits are far from 0 the curvature says little."""
SLOPES = (0.05, 20.0)
"""Bounds of the slope: below 0 it would turn the discriminator round."""


@dataclass(frozen=True)
class Recalibration:
    """Slope a and offset b of each bin of times.

    Args:
        config: how long it remembers, and how strongly it is held.
        edges: float64[n - 1], inner borders of the bins, ascending.
    """

    config: RecalibrationConfig
    edges: Tensor

    def first(self) -> dict[str, Tensor]:
        """The memory at the start: logits as they are."""
        n = len(self.edges) + 1
        start = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return {FITS: start.repeat(n, 1), CURVATURES: torch.zeros(n, 2, 2, dtype=torch.float64)}

    def __call__(self, logits: Tensor, t: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """a l + b for logits float64[B] at times float64[B]."""
        slope, offset = state[FITS][self._bins(t)].unbind(1)
        return slope * logits + offset

    @torch.no_grad()
    def follow(
        self,
        real: tuple[Tensor, Tensor],
        fake: tuple[Tensor, Tensor],
        valid: Tensor,
        state: Mapping[str, Tensor],
        collectives: Collectives,
    ) -> dict[str, Tensor]:
        """The memory after a batch that the discriminator has not been trained on.

        Args:
            real: logits float64[B] of real samples and their times.
            fake: those of the student's.
            valid: bool[B], of both.
            state: the memory.
            collectives: of all ranks, which must all call.
        """
        logits, t = (torch.cat(both) for both in zip(real, fake, strict=True))
        counted = torch.cat([valid, valid]) & logits.isfinite()
        logits = torch.where(counted, logits, 0.0)
        probable = self(logits, t, state).sigmoid()
        error = probable - torch.cat([torch.ones_like(real[0]), torch.zeros_like(fake[0])])
        features = torch.stack([logits, torch.ones_like(logits)], 1)
        bend = (probable * (1 - probable))[:, None, None] * features[:, :, None] * features[:, None]
        rows = torch.cat([error[:, None] * features, bend.flatten(1)], 1) * counted[:, None]
        sums = torch.zeros(len(self.edges) + 1, 6, dtype=torch.float64, device=rows.device)
        sums = collectives.sum(sums.index_add_(0, self._bins(t), rows))
        memory, pull, fits = self.config.memory, self.config.prior, state[FITS]
        curvature = memory * state[CURVATURES] + sums[:, 2:].view(-1, 2, 2)
        away = fits - fits.new_tensor([1.0, 0.0])
        # At the minimum of what is remembered its slope is the opposite of the pull's, of which (1 - memory) is left.
        slope = sums[:, :2] + (1 - memory) * pull * away
        held = curvature + pull * torch.eye(2, dtype=torch.float64, device=rows.device)
        step = torch.linalg.solve(held, slope).clamp(-LARGEST_STEP, LARGEST_STEP)
        moved = fits - step
        moved[:, 0].clamp_(*SLOPES)
        return {FITS: moved, CURVATURES: curvature}

    def _bins(self, t: Tensor) -> Tensor:
        return torch.bucketize(t.double(), self.edges.to(t.device), right=True)
