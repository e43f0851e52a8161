"""Samples of the teacher from the noise that the student starts from, to be seen beside the student's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.diffusion.sampling import draw
from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.method import Batch
from generative.methods.f_distill.denoiser import DenoiserParts
from generative.methods.f_distill.losses import guided
from generative.methods.f_distill.sampler import asked_for
from generative.randomness import Streams


@dataclass(frozen=True)
class TeacherSampler:
    """As the teacher's own settings say, from sigma_max z; the student starts from its own sigma times z.

    Args:
        teacher: the frozen network.
        parts: its kind.
        sampling: how it draws; their guidance is not used.
        guidance: as in the distillation, whose student imitates the guided teacher.
    """

    teacher: nn.Module
    parts: DenoiserParts
    sampling: EdmSamplingConfig
    guidance: float = 1.0

    @property
    def calls(self) -> int:
        """Network calls for a sample."""
        return self.sampling.calls * (2 if self._guides else 1)

    @property
    def in_words(self) -> str:
        """For captions."""
        guided = f", guidance {self.guidance:g}" if self._guides else ""
        return f"{self.sampling.in_words}{guided}, {self.calls} calls"

    @property
    def _guides(self) -> bool:
        return self.guidance != 1.0 and self.parts.guidable

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float32[B, *shape]: ids and classes as of the student's sampler, so that both draw from the same noise."""
        ids, labels = asked_for(condition, streams, self.parts, next(self.teacher.parameters()).device)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            x, sigma = x.float(), sigma.float()
            found: Tensor = self.teacher(x, sigma, labels)
            if not self._guides or labels is None:
                return found
            return guided(found, self.teacher(x, sigma, self.parts.unconditional(labels)), self.guidance)

        def noise(step: int) -> Tensor:
            return streams.at(step).normal("churn", ids, self.parts.shape)

        return draw(self.sampling, denoise, streams.normal("z", ids, self.parts.shape), noise)
