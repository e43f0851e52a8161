"""What the method needs of the diffusion network that it distils, and of which it makes student and fake score."""

from __future__ import annotations

import math
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


NEAR = 0.01
"""Greatest relative distance of a noise level from one that a network knows."""


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
        text_shape: (L, D) of the embeddings of a network that is told texts; batches hold `text` [B, L, D].
        empty: finds that of the empty text, float[L, D]; asked only where there is guidance.
        noise_levels: those that it was trained on, ascending; None: any.
        pretrained: makes the teacher with its weights, where they are not a run's.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    maps: Sequence[FeatureMap]
    multiply_adds: int = 0
    encoder_multiply_adds: int = 0
    text_shape: tuple[int, int] | None = None
    empty: Callable[[], Tensor] | None = None
    noise_levels: tuple[float, ...] | None = None
    pretrained: Callable[[], nn.Module] | None = None

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
        """One-hot classes of a batch, float32[B, classes], or texts [B, L, D]; None where the network is told none.

        Raises:
            ConfigError: the data has no classes, or no texts of this form.
        """
        if self.text_shape is not None:
            return self._texts(batch)
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
        return self.classes > 0 or self.text_shape is not None

    def unconditional(self, labels: Tensor) -> Tensor:
        """In place of `labels`: what the network is told where it is told nothing."""
        return torch.zeros_like(labels) if self.empty is None else self.empty().to(labels).expand_as(labels)

    def _texts(self, batch: Batch) -> Tensor:
        assert self.text_shape is not None
        found = batch.get("text")
        if found is None or found.shape[1:] != self.text_shape:
            seen = "none" if found is None else f"embeddings of shape {[*found.shape]}"
            raise ConfigError(
                f"a teacher that is told texts, and a batch with {seen}",
                f"embeddings of shape [B, {', '.join(map(str, self.text_shape))}] under the name text",
                "train on data.name=captions, or compute them with the model's own text encoder",
            )
        return found.float()

    def check_levels(self, levels: Sequence[float]) -> None:
        """Refuse noise levels of a student that the network was not trained on.

        Raises:
            ConfigError: see above.
        """
        known = torch.tensor(self.noise_levels or (), dtype=torch.float64)
        for level in levels if self.noise_levels else ():
            nearest = float(known[(known.log() - math.log(level)).abs().argmin()])
            if abs(math.log(level / nearest)) > NEAR:
                raise ConfigError(
                    f"a student that is called at noise {level:g}",
                    f"noise of the teacher's schedule, {float(known[0]):.4g} to {float(known[-1]):.6g}",
                    f"take {nearest:.6g} in method.student_sigma or method.steps.levels",
                )
