"""What the method needs of the diffusion network that it distils, and of which it makes student and fake score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.method import Batch
from generative.nets.adapters import Adapters

Call = Callable[..., Any]
"""The network's forward:

    net(x [B, *shape], sigma float[B], labels float[B, classes] | None) -> D, the estimate of clean samples
    net(..., features=levels, encoder_only=True) -> maps [B, C, R, R] of the encoder, one for each level
    net(..., features=levels, decoder_gradient=False) -> (D without gradient, maps with gradient)
"""


@dataclass(frozen=True)
class FeatureMap:
    """Of one level of the encoder: [B, channels, side, side]."""

    channels: int
    side: int


@dataclass(frozen=True)
class DenoiserParts:
    """A kind of diffusion network in EDM's parametrisation.

    Args:
        build: makes one, without dropout.
        shape: of a sample.
        classes: that it is told of; 0: none.
        maps: what its encoder gives, from the finest level to the coarsest.
        multiply_adds: of one call on one sample.
        encoder_multiply_adds: of its encoder alone.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    maps: Sequence[FeatureMap]
    multiply_adds: int = 0
    encoder_multiply_adds: int = 0

    def chosen(self, levels: Sequence[int] | None) -> list[int]:
        """The levels that the discriminator looks at; None: the coarsest.

        Raises:
            ConfigError: a level that there is not.
        """
        found = [len(self.maps) - 1] if levels is None else list(levels)
        if max(found) >= len(self.maps):
            raise ConfigError(
                f"method.levels={found} of a network with {len(self.maps)} levels",
                f"levels from 0 to {len(self.maps) - 1}",
                "correct method.levels, or leave it out for the coarsest level",
            )
        return found

    def labels(self, batch: Batch) -> Tensor | None:
        """One-hot classes of a batch, float32[B, classes]; None where the network is told none.

        Raises:
            ConfigError: the data has no classes.
        """
        if not self.classes:
            return None
        if "label" not in batch:
            raise ConfigError(
                f"a teacher of {self.classes} classes, and data without labels",
                "data with a class for each sample, which student and teacher share",
                "take the data that the teacher was trained on",
            )
        return F.one_hot(batch["label"].long(), self.classes).float()

    def adapters(self, rank: int, alpha: float, layers: Sequence[str]) -> Adapters:
        """Changes of low rank to a network of this kind. Raises ConfigError: see `Adapters`."""
        with torch.device("meta"):
            template = self.build()
        return Adapters(template, rank, alpha, layers)

    @property
    def guidable(self) -> bool:
        """Whether it is told something that guidance can leave out."""
        return self.classes > 0

    def unconditional(self, labels: Tensor) -> Tensor:
        """In place of `labels`: what the network is told where it is told nothing."""
        return torch.zeros_like(labels)


@torch.no_grad()
def without_class(teacher: Call, x_t: Tensor, t: Tensor) -> Tensor:
    """The teacher's estimate when it is told no class."""
    found: Tensor = teacher(x_t, t, None)
    return found
