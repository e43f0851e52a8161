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
        ids, labels = asked_for(condition, streams, self.parts, next(self.student.parameters()).device)
        return one_step(self.student, streams, ids, self.parts, self.sigma, labels)


def asked_for(
    condition: Batch, streams: Streams, parts: DenoiserParts, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Sample ids int64[B], and classes one-hot float32[B, K] (drawn uniformly where not given; None: none), there."""
    ids = condition["sample_id"].to(device)
    given = dict(condition)
    if parts.classes and "label" not in given:
        given["label"] = streams.integers("label", ids, parts.classes)
    labels = parts.labels(given)
    return ids, None if labels is None else labels.to(device)
