"""Samples of the teacher from the noise that the student starts from, to be seen beside the student's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.diffusion.denoising_samplers import heun, start
from generative.diffusion.noise_levels import karras_grid, with_zero
from generative.method import Batch
from generative.methods.f_distill.denoiser import DenoiserParts
from generative.methods.f_distill.losses import guided
from generative.methods.f_distill.sampler import asked_for
from generative.methods.f_distill.times import TimeGrid
from generative.randomness import Streams


@dataclass(frozen=True)
class TeacherSampler:
    """Heun's method (Karras et al. 2022, algorithm 1) from sigma_max z; the student starts from its own sigma times z.

    Args:
        teacher: the frozen network.
        parts: its kind.
        grid: its range of noise.
        steps: N; calls are 2 N - 1, and twice that with guidance.
        guidance: as in the distillation.
    """

    teacher: nn.Module
    parts: DenoiserParts
    grid: TimeGrid
    steps: int
    guidance: float = 1.0

    @property
    def calls(self) -> int:
        """Network calls for a sample."""
        return (2 * self.steps - 1) * (2 if self._guides else 1)

    @property
    def _guides(self) -> bool:
        return self.guidance != 1.0 and self.parts.guidable

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float32[B, *shape]: ids and classes as of the student's sampler, so that both draw from the same noise."""
        ids, labels = asked_for(condition, streams, self.parts, next(self.teacher.parameters()).device)
        levels = with_zero(karras_grid(self.steps, self.grid.sigma_min, self.grid.sigma_max, self.grid.rho))

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            x, sigma = x.float(), sigma.float()
            found: Tensor = self.teacher(x, sigma, labels)
            if not self._guides or labels is None:
                return found
            return guided(found, self.teacher(x, sigma, self.parts.unconditional(labels)), self.guidance)

        return heun(denoise, start(streams.normal("z", ids, self.parts.shape).to(ids.device), levels), levels).float()
