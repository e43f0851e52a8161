"""Samples of a trained generator."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.method import Batch
from generative.nets.standing import standing_statistics
from generative.randomness import Streams


@dataclass(frozen=True)
class GanSampler:
    """One sample a row.

    Args:
        generator: in eval mode, so that a sample does not depend on its batch.
        latent: size of z.
    """

    generator: nn.Module
    latent: int

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float[B, *shape] from z ~ N(0, I) of the sample ids."""
        ids = condition["sample_id"]
        device = next(self.generator.parameters()).device
        samples: Tensor = self.generator(streams.normal("z", ids, (self.latent,)).to(device))
        return samples.float()


@torch.no_grad()
def standing_generator(generator: nn.Module, latent: int, count: int) -> nn.Module:
    """A copy with batch statistics measured over `count` fresh samples under the weights that it wears (spec 13).

    Averaged weights have no statistics of their own: those kept in training belong to other weights.
    """
    found = copy.deepcopy(generator)
    device, streams = next(found.parameters()).device, Streams(0).within("standing_stats")

    def draw(ids: Tensor) -> Tensor:
        return streams.normal("z", ids, (latent,)).to(device)

    for name, buffer in standing_statistics(found, draw, count).items():
        found.get_buffer(name).copy_(buffer)
    return found.eval()
