"""What a network's output means: scores and clean spectrograms from raw outputs.

Sources: v1: Richter et al. 2023 (arXiv 2208.05830); v2: Richter et al. 2024 (arXiv 2409.10753) and its
released code; the edm scalings are those of Karras et al. 2022 (arXiv 2206.00364), table 1.

Shapes: B items; x_t, y complex [B, 1, F, K]; t float [B].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from generative.errors import ConfigError
from generative.methods.sgmse.processes import Process, spread

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, y, t) -> complex [B, 1, F, K]: the raw network."""
Model = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, y, t) -> complex like x_t: a score, or a clean spectrogram (a denoiser)."""
LossType = Literal["score_matching", "denoiser", "data_prediction"]


@dataclass(frozen=True)
class Wrapping:
    """Scalings around the network, and what its output is taken for.

    v1: score = -net(x_t, y, t). v2, with F = net(c_in x_t, c_in y, t) / (1, std or t):
    score_matching: score = c_skip x_t + c_out F; denoiser: F is the mean of x_t, score = (F - x_t) / std^2;
    data_prediction: x0 = c_skip x_t + c_out F.

    Args:
        version: "v1" (networks that divide by t themselves) or "v2".
        loss_type: what is learned; v1 knows score matching only.
        network_scaling: what the output is divided by.
        c_in: 1, or 1 / sqrt(std^2 + sigma_data^2).
        c_out: 1, std, 1 / std, or std sigma_data / sqrt(std^2 + sigma_data^2).
        c_skip: 0, or sigma_data^2 / (std^2 + sigma_data^2).
        sigma_data: above 0.
    """

    version: Literal["v1", "v2"] = "v2"
    loss_type: LossType = "score_matching"
    network_scaling: Literal["none", "1/sigma", "1/t"] = "none"
    c_in: Literal["1", "edm"] = "1"
    c_out: Literal["1", "sigma", "1/sigma", "edm"] = "1"
    c_skip: Literal["0", "edm"] = "0"
    sigma_data: float = 0.1

    def __post_init__(self) -> None:
        plain = (self.loss_type, self.network_scaling, self.c_in, self.c_out, self.c_skip)
        if self.version == "v1" and plain != ("score_matching", "none", "1", "1", "0"):
            raise ConfigError(
                f"scalings {plain} around a v1 network",
                expected="score matching without scalings: v1 networks divide by t themselves",
                remedy="leave them out, or take version=v2",
            )
        if self.sigma_data <= 0:
            raise ConfigError(f"sigma_data={self.sigma_data}", "a number above 0", "take 0.1, the published value")

    def output(self, net: Network, process: Process, x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Score, or clean spectrogram under data prediction: complex [B, 1, F, K]."""
        if self.version == "v1":
            return -net(x_t, y, t)
        std = process.std(t)
        scale = spread(self._in(std), x_t)
        raw = net(scale * x_t, scale * y, t)
        if self.network_scaling != "none":
            raw = raw / spread(std if self.network_scaling == "1/sigma" else t, x_t)
        if self.loss_type == "denoiser":
            return (raw - x_t) / spread(std, x_t) ** 2
        scaled = spread(self._out(std), x_t) * raw
        return scaled if self.c_skip == "0" else scaled + spread(self._skip(std), x_t) * x_t

    def score(self, net: Network, process: Process) -> Model:
        """The network as a score."""
        model = self._bound(net, process)
        return score_of(process, model) if self.loss_type == "data_prediction" else model

    def denoiser(self, net: Network, process: Process) -> Model:
        """The network as a denoiser: an estimate of x0."""
        model = self._bound(net, process)
        return model if self.loss_type == "data_prediction" else denoiser_of(process, model)

    def _bound(self, net: Network, process: Process) -> Model:
        return lambda x_t, y, t: self.output(net, process, x_t, y, t)

    def _in(self, std: Tensor) -> Tensor:
        return std**0 if self.c_in == "1" else self._variance(std) ** -0.5

    def _out(self, std: Tensor) -> Tensor:
        match self.c_out:
            case "1":
                return std**0
            case "sigma":
                return std
            case "1/sigma":
                return 1 / std
            case "edm":
                return std * self.sigma_data * self._variance(std) ** -0.5

    def _skip(self, std: Tensor) -> Tensor:
        return self.sigma_data**2 / self._variance(std)

    def _variance(self, std: Tensor) -> Tensor:
        return std.square() + self.sigma_data**2


def denoiser_of(process: Process, score: Model) -> Model:
    """x0 = y + (x_t - y + std^2 score) / a: the mean of x0 given x_t, where the score is exact."""

    def denoise(x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        variance = spread(process.std(t).square(), x_t)
        return y + (x_t - y + variance * score(x_t, y, t)) / spread(process.signal(t), x_t)

    return denoise


def score_of(process: Process, denoiser: Model) -> Model:
    """score = (mean(x0, y, t) - x_t) / std^2; the inverse of `denoiser_of`. Not at t = 0, where std is 0."""

    def score(x_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return (process.mean(denoiser(x_t, y, t), y, t) - x_t) / spread(process.std(t).square(), x_t)

    return score
