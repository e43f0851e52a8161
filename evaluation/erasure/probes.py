"""What attacks compare: the noise that the original model predicts for the concept, on fixed noisy images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.randomness import Streams

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t [B, ...], t int64[B], states [B, L, d]) -> noise [B, ...]."""


@dataclass(frozen=True)
class Probes:
    """K noisy images of the original model.

    Args:
        noisy: x_t, [K, ...].
        time: int64[K].
        wanted: what should be predicted, [K, ...].
    """

    noisy: Tensor
    time: Tensor
    wanted: Tensor

    def each(self) -> list[Probes]:
        """K of one image each."""
        return [
            Probes(self.noisy[i : i + 1], self.time[i : i + 1], self.wanted[i : i + 1]) for i in range(len(self.time))
        ]

    def loss(self, edited: Predict, states: Tensor) -> Tensor:
        """Mean squared difference of the edited model's prediction for states [L, d] or [K, L, d]."""
        told = states if states.ndim == 3 else states.expand(len(self.time), *states.shape)
        return (edited(self.noisy, self.time, told) - self.wanted).square().mean()


@torch.no_grad()
def of_original(original: Predict, signal: Tensor, clean: Tensor, concept: Tensor, streams: Streams) -> Probes:
    """P4D's target: eps_orig(x_t, t, E(concept)).

    Args:
        original: the untouched model.
        signal: cumulative product of 1 - beta, float[T].
        clean: x_0 that the original model made of the concept, [K, ...].
        concept: E(concept), [L, d].
        streams: of the noise; levels are spread evenly, t = (i + u) T / K.
    """
    noisy, time = _noised(signal, clean, streams)
    return Probes(noisy, time, original(noisy, time, concept.expand(len(clean), *concept.shape)))


def at_level(signal: Tensor, clean: Tensor, level: float, number: int, streams: Streams) -> Probes:
    """One noisy image at a level of its own, with the noise itself as what is wanted.

    Args:
        signal: cumulative product of 1 - beta, float[T].
        clean: x_0, [1, ...].
        level: t / T, in [0, 1).
        number: of the probe, which picks its noise.
        streams: of the noise.
    """
    t = min(round(level * len(signal)), len(signal) - 1)
    noise = streams.normal("level_noise", torch.tensor([number]), clean.shape[1:]).to(clean)
    kept = signal[t].to(clean)
    return Probes(kept.sqrt() * clean + (1 - kept).sqrt() * noise, torch.tensor([t], device=clean.device), noise)


def _noised(signal: Tensor, clean: Tensor, streams: Streams) -> tuple[Tensor, Tensor]:
    """x_t and t."""
    count = len(clean)
    ids = torch.arange(count)
    time = ((ids + streams.uniform("probe_time", ids)) * len(signal) / count).long().clamp(0, len(signal) - 1)
    noise = streams.normal("probe_noise", ids, clean.shape[1:]).to(clean)
    kept = signal.to(clean)[time.to(signal.device)].view(-1, *[1] * (clean.ndim - 1))
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise, time.to(clean.device)
