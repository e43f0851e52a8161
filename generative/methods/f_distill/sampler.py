"""Samples of a distilled student: one call of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.method import Batch
from generative.methods.f_distill.denoiser import Call, DenoiserParts
from generative.randomness import Streams


def one_step(
    student: Call, streams: Streams, ids: Tensor, parts: DenoiserParts, sigma: float, labels: Tensor | None
) -> Tensor:
    """G(sigma z, sigma, labels) for z ~ N(0, I) of each sample id, [B, *shape]."""
    z = sigma * streams.normal("z", ids, parts.shape)
    found: Tensor = student(z, torch.full((len(ids),), sigma, device=z.device), labels)
    return found


@dataclass(frozen=True)
class OneStepSampler:
    """Draws with the student.

    Args:
        student: the trained network.
        parts: its kind.
        sigma: noise that it starts from.
    """

    student: nn.Module
    parts: DenoiserParts
    sigma: float

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """A sample for each row; `label` int64[B] where the student knows classes, drawn uniformly where not given."""
        device = next(self.student.parameters()).device
        ids = condition["sample_id"].to(device)
        given = dict(condition)
        if self.parts.classes and "label" not in given:
            given["label"] = streams.integers("label", ids, self.parts.classes)
        labels = self.parts.labels(given)
        labels = None if labels is None else labels.to(device)
        return one_step(self.student, streams, ids, self.parts, self.sigma, labels)
