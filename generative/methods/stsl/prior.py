"""A diffusion prior as posterior samplers see it: the noise e(z, level), levels, and an autoencoder for latent ones.

Adapters: networks with discrete times (epsilon, v, sample, score), denoisers D(x, sigma) (EDM), flows u(x, t). Weights
are never trained here: callers freeze them, so that only gradients with respect to z are kept.

Shapes: B rows; z [B, *shape]; images [B, *image].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from generative.errors import ConfigError
from generative.methods.stsl.levels import Level, ddim_times, ladder, level_of, linear_alphas
from generative.methods.stsl.predictions import Kind, to_noise

Noise = Callable[[Tensor, Level], Tensor]
Network = Callable[[Tensor, Tensor], Tensor]
"""(x [B, ...], time or sigma float32[B]) -> prediction of x's shape."""
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Prior:
    """A diffusion model.

    Args:
        shape: of one z.
        image: of one image; the same for pixel priors.
        noise: e(z, level), differentiable, in z's type.
        levels: number of steps -> levels from noise to data, one more than steps.
        nearest: sigma -> the nearest level that the network knows.
        encode, decode: autoencoder with its scale; None: pixels.
        both: (e, v) where the network also interpolates the variance (ADM, learned_range); v in [-1, 1].
        about: what it is, in a few words.
    """

    shape: tuple[int, ...]
    image: tuple[int, ...]
    noise: Noise
    levels: Callable[[int], list[Level]]
    nearest: Callable[[float], Level]
    encode: Map | None = None
    decode: Map | None = None
    both: Callable[[Tensor, Level], tuple[Tensor, Tensor]] | None = None
    about: str = field(default="", compare=False)

    @property
    def latent(self) -> bool:
        """Whether z is not the image itself."""
        return self.decode is not None


def recomputed(prior: Prior) -> Prior:
    """A latent prior that keeps no activations of its autoencoder: backward passes compute them again.

    Decoders of photographs need more memory than the network of latents; the same results for a second forward pass.

    Raises:
        ConfigError: a prior of pixels.
    """
    if not prior.latent:
        raise ConfigError(
            "a decoder to compute again, of a prior of pixels",
            "a prior of latents, which has an autoencoder",
            "leave out --checkpoint-decoder",
        )
    return replace(prior, encode=_recomputed(prior.encode), decode=_recomputed(prior.decode))


def _recomputed(door: Map | None) -> Map | None:
    if door is None:
        return None

    def through(x: Tensor) -> Tensor:
        found: Tensor = checkpoint(door, x, use_reentrant=False, preserve_rng_state=False)
        return found

    return through


def discrete_prior(
    network: Network,
    alphas: Tensor,
    shape: tuple[int, ...],
    kind: Kind = "epsilon",
    final: Literal["first", "one"] = "one",
    variance: bool = False,
    image: tuple[int, ...] | None = None,
    encode: Map | None = None,
    decode: Map | None = None,
    about: str = "",
) -> Prior:
    """A network that is told times 0 .. N-1 of a variance-preserving path.

    Args:
        network: (z, times float32[B]) -> prediction; with `variance` twice the channels, the second half v.
        alphas: cumulative products float64[N].
        shape: of z.
        kind: what is predicted.
        final: where sampling ends.
        variance: whether the network also predicts v.
        image: of images; None: shape.
        encode, decode: of a latent prior.
        about: what it is.
    """

    def raw(z: Tensor, level: Level) -> Tensor:
        return network(z, torch.full((len(z),), level.time, dtype=torch.float32, device=z.device))

    def both(z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        e, v = raw(z, level).chunk(2, dim=1)
        return to_noise(kind, e, z, level), v.to(z.dtype)

    def noise(z: Tensor, level: Level) -> Tensor:
        return both(z, level)[0] if variance else to_noise(kind, raw(z, level), z, level)

    sigmas = ((1 - alphas) / alphas).sqrt()

    def nearest(sigma: float) -> Level:
        time = int((sigmas.log() - math.log(sigma)).abs().argmin())
        return level_of(float(alphas[time]), time)

    return Prior(
        shape,
        image or shape,
        noise,
        lambda steps: ladder(alphas, ddim_times(len(alphas), steps), final),
        nearest,
        encode,
        decode,
        both if variance else None,
        about,
    )


def denoiser_prior(
    denoise: Network,
    shape: tuple[int, ...],
    sigma_max: float = 80.0,
    alphas: Tensor | None = None,
    about: str = "",
    image: tuple[int, ...] | None = None,
    encode: Map | None = None,
    decode: Map | None = None,
) -> Prior:
    """A denoiser D(x, sigma) of x = y + sigma n (EDM): e = (z / a - D) / sigma at sigma = b / a.

    Sampling stops at the levels of a variance-preserving path (default: linear betas), above which `sigma_max` caps.
    `image`, `encode` and `decode`: of a latent prior.
    """
    path = linear_alphas() if alphas is None else alphas

    def noise(z: Tensor, level: Level) -> Tensor:
        x, sigma = z / level.signal, torch.full((len(z),), level.sigma, dtype=torch.float32, device=z.device)
        return (x - denoise(x, sigma).to(z.dtype)) / level.sigma

    return Prior(
        shape,
        image or shape,
        noise,
        lambda steps: _below(path, steps, sigma_max),
        lambda sigma: _any_level(min(sigma, sigma_max)),
        encode,
        decode,
        about=about,
    )


def flow_prior(velocity: Network, shape: tuple[int, ...], sigma_max: float = 80.0, about: str = "") -> Prior:
    """A flow u(x, t) = n - x0 of x = (1 - t) x0 + t n: asked at t = sigma / (1 + sigma) of the level's sigma."""

    def noise(z: Tensor, level: Level) -> Tensor:
        t = level.sigma / (1 + level.sigma)
        x = z * ((1 - t) / level.signal)
        times = torch.full((len(z),), t, dtype=torch.float32, device=z.device)
        return to_noise("flow", velocity(x, times), x, Level(t, 1 - t, t))

    return Prior(
        shape,
        shape,
        noise,
        lambda steps: _below(linear_alphas(), steps, sigma_max),
        lambda sigma: _any_level(min(sigma, sigma_max)),
        about=about,
    )


def _below(alphas: Tensor, steps: int, sigma_max: float) -> list[Level]:
    """`steps` levels evenly in the times of a path, over its part whose noise is at most sigma_max, then no noise.

    Networks that know any noise level are asked between the path's times too: log sigma is interpolated.
    """
    if steps < 1:
        raise ConfigError(f"{steps} steps", "1 or more", "give another number of steps")
    logs = ((1 - alphas) / alphas).log().numpy() / 2
    last = float(np.interp(math.log(sigma_max), logs, np.arange(len(logs))))
    sigmas = np.exp(np.interp(np.linspace(0, last, steps + 1)[:0:-1], np.arange(len(logs)), logs))
    return [*(_any_level(float(sigma)) for sigma in sigmas), level_of(1.0, 0)]


def _any_level(sigma: float) -> Level:
    return level_of(1 / (1 + sigma**2), 0)
