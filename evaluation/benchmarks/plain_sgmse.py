"""SGMSE+ around its network, written out as it was published: a training step, and enhancement of one file at a time.

Sources: Richter et al. 2023 (arXiv 2208.05830) and 2024 (arXiv 2409.10753), Jukic et al. 2024 (arXiv 2407.16074). Only
what is compared is there: data prediction on the bridge SBVE without scalings, scores of v1 networks on OUVE,
spectrograms with a Hann window and powers of magnitudes.

Shapes: B items, n samples, F bins, K frames; spectrograms complex [B, 1, F, K], t float [B].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.benchmarks.plain_ncsnpp import PlainNcsnpp
from generative.methods.sgmse.config import OuveConfig, SbveConfig, SgmseConfig, SpectrogramConfig
from generative.methods.sgmse.noise import Noise

EPS = 1e-8
"""Of the bridge."""


def to_spectrogram(wave: Tensor, config: SpectrogramConfig) -> Tensor:
    """float[B, n] -> compressed complex [B, 1, F, K]."""
    window = torch.hann_window(config.n_fft, dtype=wave.dtype, device=wave.device)
    spectrum = torch.stft(wave, config.n_fft, config.hop, window=window, center=True, return_complex=True)
    return (config.factor * spectrum.abs() ** config.exponent * torch.exp(1j * spectrum.angle()))[:, None]


def to_wave(spectrogram: Tensor, config: SpectrogramConfig, length: int) -> Tensor:
    """Compressed complex [B, 1, F, K] -> float[B, length]."""
    scaled = spectrogram[:, 0] / config.factor
    spectrum = scaled.abs() ** (1 / config.exponent) * torch.exp(1j * scaled.angle())
    window = torch.hann_window(config.n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    return torch.istft(spectrum, config.n_fft, config.hop, window=window, center=True, length=length)


def bridge_laws(t: Tensor, config: SbveConfig) -> tuple[Tensor, Tensor, Tensor]:
    """sigma_t, sigma_bar_t and sigma_T of SBVE, in the type of t."""
    log_k = math.log(config.k)
    variance = config.c * (config.k ** (2 * t) - 1) / (2 * log_k)
    last = torch.as_tensor(config.c * (config.k**2 - 1) / (2 * log_k), dtype=t.dtype, device=t.device)
    return variance.sqrt(), (last - variance + EPS).sqrt(), last.sqrt()


class PlainEma:
    """shadow <- shadow - (1 - d)(shadow - weight), d = min(rate, (1 + n) / (10 + n)), one tensor after the other.

    Args:
        weights: all tensors of the network, those that are not trained too.
        rate: decay.
    """

    def __init__(self, weights: Iterable[Tensor], rate: float) -> None:
        self.weights, self.rate, self.updates = list(weights), rate, 0
        self.shadows = [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step."""
        self.updates += 1
        decay = min(self.rate, (1 + self.updates) / (10 + self.updates))
        for shadow, weight in zip(self.shadows, self.weights, strict=True):
            shadow.sub_((1 - decay) * (shadow - weight))


class PlainTraining:
    """Data prediction on the bridge SBVE: Adam, and an average of the weights.

    Args:
        net: is trained.
        config: of the method.
        lr: learning rate.
    """

    def __init__(self, net: PlainNcsnpp, config: SgmseConfig, lr: float = 1e-4) -> None:
        assert isinstance(config.process, SbveConfig)
        self.net, self.config, self.process = net.train(), config, config.process
        self.optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        self.average = PlainEma(net.parameters(), config.ema[0])

    def step(self, clean: Tensor, noisy: Tensor) -> None:
        """One step on waves float[B, n] each."""
        pairs = [self.pair(x, y) for x, y in zip(clean, noisy, strict=True)]
        x0, y = (torch.cat(spectra) for spectra in zip(*pairs, strict=True))
        t = torch.rand(len(y), device=y.device) * (1 - self.process.t_eps) + self.process.t_eps
        self.optimizer.zero_grad()
        torch.autograd.backward(self.loss(x0, y, t, torch.randn_like(x0)))
        self.optimizer.step()
        self.average.update()

    def pair(self, clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """Waves float[n] as the data set hands them out, each by itself: normalised spectrograms [1, 1, F, K]."""
        level = noisy.abs().max()
        return (
            to_spectrogram(clean[None] / level, self.config.spectrogram),
            to_spectrogram(noisy[None] / level, self.config.spectrogram),
        )

    def loss(self, x0: Tensor, y: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Mean over items of 0.5/(F K) sum |xhat - x0|^2 + l1_weight 0.5/n sum |waves' difference|."""
        sigma, bar, last = (law[..., None, None, None] for law in bridge_laws(t, self.process))
        mean = bar**2 / (last**2 + EPS) * x0 + sigma**2 / ((1 + EPS) * (last**2 + EPS)) * y
        x_t = mean + bar * sigma / (last + EPS) * z
        estimate = self.net(x_t, y, t)
        bins, frames = y.shape[2:]
        spectral = 0.5 / (bins * frames) * (estimate - x0).abs().square().flatten(1).sum(1)
        length = (frames - 1) * self.config.spectrogram.hop
        found, clean = (to_wave(each, self.config.spectrogram, length) for each in (estimate, x0))
        temporal = 0.5 / length * (found - clean).abs().sum(1)
        loss: Tensor = spectral.mean() + self.config.l1_weight * temporal.mean()
        return loss


@torch.no_grad()
def enhance(
    net: PlainNcsnpp, config: SgmseConfig, wave: Tensor, noise_of: Callable[[Tensor], Noise] | None = None
) -> Tensor:
    """One file, float[n] -> float[n] on the CPU.

    Args:
        net: the network, in eval mode, on its device.
        config: of the method; SBVE is sampled by its ODE, OUVE by predictor and annealed Langevin corrector.
        wave: noisy.
        noise_of: from the padded noisy spectrogram to the noise; None: fresh noise.
    """
    device = net.output_layer.weight.device
    level = wave.abs().max()
    y = to_spectrogram(wave.to(device)[None] / level, config.spectrogram)
    multiple = 2 ** (len(net.config.multipliers) - 1)
    extra = -y.shape[-1] % multiple
    if extra:  # complex numbers cannot be reflected, their parts can
        y = torch.complex(*(F.pad(part, (0, extra, 0, 0), mode="reflect") for part in (y.real, y.imag)))
    if isinstance(config.process, SbveConfig):
        estimate = bridge_ode(net, config.process, y, config.sampling.steps)
    else:
        assert isinstance(config.process, OuveConfig)
        noise = (lambda name, step: torch.randn_like(y)) if noise_of is None else noise_of(y)
        estimate = predictor_corrector(net, config, config.process, y, noise)
    return to_wave(estimate, config.spectrogram, len(wave))[0].cpu() * level


def bridge_ode(net: nn.Module, process: SbveConfig, y: Tensor, steps: int) -> Tensor:
    """x <- a x + b xhat + d y from T to 1e-4; the network is told the time of the new state. Coefficients in float64,
    as float32 has no digits left for them near T.
    """
    times = torch.linspace(1.0, 1e-4, steps + 1, dtype=torch.float64)
    sigmas, bars, end = bridge_laws(times, process)
    last, x = end.item(), y
    for (s, s_new), (bar, bar_new), t in zip(
        itertools.pairwise(sigmas.tolist()), itertools.pairwise(bars.tolist()), times[1:].tolist(), strict=True
    ):
        estimate = net(x, y, torch.full((len(y),), t, dtype=y.real.dtype, device=y.device))
        a = s_new * bar_new / (s * bar + EPS)
        b = (bar_new**2 - bar * s_new * bar_new / (s + EPS)) / (last**2 + EPS)
        d = (s_new**2 - s * s_new * bar_new / (bar + EPS)) / (last**2 + EPS)
        x = a * x + b * estimate + d * y
    return x


def predictor_corrector(net: nn.Module, config: SgmseConfig, process: OuveConfig, y: Tensor, noise: Noise) -> Tensor:
    """OUVE from T to t_eps, each of N times a Langevin step and one of reverse diffusion; the last mean."""
    chosen, ratio = config.sampling, process.sigma_max / process.sigma_min
    log_ratio = math.log(ratio)
    times = torch.linspace(1.0, process.t_eps, chosen.steps, dtype=y.real.dtype, device=y.device)

    def std(t: Tensor) -> Tensor:
        grown = ratio ** (2 * t) - torch.exp(-2 * process.theta * t)
        return process.sigma_min * (log_ratio * grown / (process.theta + log_ratio)).sqrt()

    def score(x: Tensor, t: Tensor) -> Tensor:
        return -net(x, y, t.expand(len(y)))  # type: ignore[no-any-return]

    x = mean = y + std(times[0]) * noise("prior", 0)
    for step, t in enumerate(times):
        dt = t - times[step + 1] if step + 1 < len(times) else t
        size = 2 * (chosen.snr * std(t)) ** 2
        x = x + size * score(x, t) + (2 * size).sqrt() * noise("corrector", step)
        g = process.sigma_min * ratio**t * math.sqrt(2 * log_ratio)
        mean = x - process.theta * (y - x) * dt + g**2 * dt * score(x, t)
        x = mean + g * dt.sqrt() * noise("predictor", step)
    return mean
