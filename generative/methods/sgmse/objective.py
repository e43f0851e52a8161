"""One training example: noise is added, the network answers, the loss of each item is taken.

Shapes: B items; spectrograms complex [B, 1, F, K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse import losses
from generative.methods.sgmse.losses import Weighting
from generative.methods.sgmse.noise import complex_normal
from generative.methods.sgmse.processes import Process, draw_times, spread
from generative.methods.sgmse.spectrogram import Spectrogram
from generative.methods.sgmse.wrapping import Network, Wrapping
from generative.randomness import Streams


@dataclass(frozen=True)
class Noised:
    """A forward-process state.

    Args:
        t: float[B].
        noise: z, complex [B, 1, F, K].
        mean: of x_t given x0 and y.
        x_t: mean + std(t) z.
    """

    t: Tensor
    noise: Tensor
    mean: Tensor
    x_t: Tensor


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Args:
        process: forward process.
        wrapping: of the network; its loss_type picks the loss.
        spectrogram: back to waves, for the terms of data prediction that compare these.
        weighting: of the denoiser loss.
        l1_weight: of the time-domain term of data prediction, at least 0.
        pesq_weight: of the PESQ term of data prediction, at least 0; needs `pesq`.
        pesq: `losses.pesq_loss(sample_rate)`.
    """

    process: Process
    wrapping: Wrapping
    spectrogram: Spectrogram = field(default_factory=Spectrogram)
    weighting: Weighting = "1"
    l1_weight: float = 1e-3
    pesq_weight: float = 0.0
    pesq: Callable[[Tensor, Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.l1_weight < 0 or self.pesq_weight < 0:
            raise ConfigError(
                f"l1_weight={self.l1_weight}, pesq_weight={self.pesq_weight}",
                expected="weights of at least 0",
                remedy="take 1e-3 and 5e-4, the published weights, or 0",
            )
        if self.pesq_weight and self.pesq is None:
            raise ConfigError(
                f"pesq_weight={self.pesq_weight} without a PESQ loss",
                expected="pesq=losses.pesq_loss(sample_rate)",
                remedy="give it, or set pesq_weight=0",
            )

    def noised(self, x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Noised:
        """x_t = mean(x0, y, t) + std(t) z at times t [B]."""
        mean = self.process.mean(x0, y, t)
        return Noised(t, noise, mean, mean + spread(self.process.std(t), mean) * noise)

    def draw(self, x0: Tensor, y: Tensor, streams: Streams, sample_id: Tensor) -> Noised:
        """The state at a random time, by the streams "time" and "noise" of each sample."""
        uniform = streams.uniform("time", sample_id).to(y.device)
        noise = complex_normal(streams, "noise", sample_id, y)
        return self.noised(x0, y, draw_times(self.process, uniform), noise)

    def terms(self, net: Network, x0: Tensor, y: Tensor, state: Noised) -> dict[str, Tensor]:
        """float[B] each: "loss", and under data prediction the terms that it is made of."""
        output = self.wrapping.output(net, self.process, state.x_t, y, state.t)
        std = self.process.std(state.t)
        match self.wrapping.loss_type:
            case "score_matching":
                return {"loss": losses.score_matching(output, state.noise, std)}
            case "denoiser":
                sigma_data = self.wrapping.sigma_data
                return {"loss": losses.denoising(output, state.x_t, state.mean, std, self.weighting, sigma_data)}
            case "data_prediction":
                return self._data_terms(output, x0)

    def _data_terms(self, estimate: Tensor, x0: Tensor) -> dict[str, Tensor]:
        terms = {"spectral": losses.data_prediction(estimate, x0)}
        weights = {"spectral": 1.0, "time": self.l1_weight, "pesq": self.pesq_weight}
        if self.l1_weight or self.pesq_weight:
            found, clean = losses.waves(self.spectrogram, estimate, x0)
            terms["time"] = losses.time_domain(found, clean)
            if self.pesq_weight:
                assert self.pesq is not None
                terms["pesq"] = self.pesq(clean, found)
        return {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum(0)} | terms
