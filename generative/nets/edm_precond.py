"""EDM's preconditioned denoiser (Karras et al. 2022, table 1 and section 5): a U-Net between fixed scalings.

D(x, s) = c_skip x + c_out F(c_in x, c_noise), so that in- and output of F have unit variance at every noise level s for
data of standard deviation sigma_data.

Shapes: B samples, C channels, R = side, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.errors import ConfigError
from generative.nets.dhariwal_unet import DhariwalUNet
from generative.nets.edm_config import MlpConfig, SongConfig, UNetConfig
from generative.nets.edm_mlp import MlpNet
from generative.nets.edm_unet import Told, UNetSize
from generative.nets.precision import wide
from generative.nets.song_unet import SongUNet

LEAST_SIGMA = 1e-6
"""Noise level below which c_noise stays as it is; all other scalings are those of the level itself."""


@dataclass(frozen=True)
class Scalings:
    """c_skip, c_out, c_in and c_noise, float64 in the shape of sigma."""

    skip: Tensor
    out: Tensor
    inner: Tensor
    noise: Tensor


def scalings(sigma: Tensor, sigma_data: float) -> Scalings:
    """The scalings at noise levels sigma >= 0."""
    s = sigma.double()
    both = s.square() + sigma_data**2
    return Scalings(
        skip=sigma_data**2 / both,
        out=s * sigma_data / both.sqrt(),
        inner=both.rsqrt(),
        noise=s.clamp(min=LEAST_SIGMA).log() / 4,
    )


def denoising_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(s) = (s^2 + sigma_data^2) / (s sigma_data)^2 = 1 / c_out^2 (table 1), float64 in the shape of sigma."""
    s = sigma.double()
    return (s.square() + sigma_data**2) / (s * sigma_data).square()


class EdmNetwork(nn.Module):
    """The denoiser D(x, s). Parameters have the names of released weights: `model.enc.32x32_conv.weight`, ...

    Args:
        config: the network inside.
        size: what the data and the method tell it.
        sigma_data: standard deviation of the data's pixels.

    Raises:
        ConfigError: a side that cannot be halved, or widths that normalisation cannot split.
    """

    def __init__(self, config: UNetConfig | MlpConfig, size: UNetSize, sigma_data: float = 0.5) -> None:
        super().__init__()
        if size.side % config.multiple:
            raise ConfigError(
                f"images of {size.side} x {size.side} pixels for a U-Net of {config.multiple.bit_length()} levels",
                f"a side that is a multiple of {config.multiple}",
                "give method.network.multipliers fewer levels, or set data.size",
            )
        self.sigma_data, self.size = sigma_data, size
        self.activation_checkpointing = False
        self.model = _inner(config, size)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
        seeds: Tensor | None = None,
        *,
        features: Sequence[int] | None = None,
        encoder_only: bool = False,
        decoder_gradient: bool = True,
    ) -> Tensor | tuple[Tensor, list[Tensor]] | list[Tensor]:
        """Denoised samples, or features of the encoder, or both.

        Args:
            x: [B, C, R, R], noisy samples y + sigma n.
            sigma: [B], noise levels, 0 or more.
            labels: [B, K], one row of weights of the classes each (one-hot); None: no class, zeros.
            augment: [B, L], labels of the augmentation; None: none, which is as zeros.
            seeds: int64[B], 0 .. 2^32 - 1, of the dropout in train mode; None: nothing is dropped.
            features: levels whose features are wanted, 0 being the largest: those after the last block of the level's
                encoder, [B, C', R / 2^level, R / 2^level] (see `feature_maps`); None: D alone.
            encoder_only: give the features alone, and do not run the decoder.
            decoder_gradient: False runs the decoder without gradient: D is a constant, and its activations are not
                kept, while features have their gradient.

        Returns:
            D [B, C, R, R] in fp32, or in x's type where that is wider; with `features` (D, features); with
            `encoder_only` features.
        """
        self._check(x, sigma)
        scale = scalings(sigma, self.sigma_data)
        x = wide(x)
        weight = self.model.map_layer0.weight
        inner = (_spread(scale.inner, x) * x).to(weight.dtype)
        told = Told(self.model.embed(scale.noise.to(x.dtype), labels, augment), seeds, self.activation_checkpointing)
        encoded = self.model.encode(inner, told)
        found = [encoded.features[level] for level in features or ()]
        if encoder_only:
            return found
        with torch.set_grad_enabled(torch.is_grad_enabled() and decoder_gradient):
            raw = self.model.decode(encoded if decoder_gradient else encoded.detached(), told)
            denoised = _spread(scale.skip, x) * x + _spread(scale.out, x) * raw.to(x.dtype)
        return denoised if features is None else (denoised, found)

    def _check(self, x: Tensor, sigma: Tensor) -> None:
        size = self.size
        wanted = (size.channels, size.side, size.side)
        if x.shape[1:] != wanted or sigma.shape != x.shape[:1]:
            raise ConfigError(
                f"samples of shape {list(x.shape)} at noise levels of shape {list(sigma.shape)}",
                f"[B, {', '.join(map(str, wanted))}] and [B]",
                "give the network the data that it was made for",
            )

    @property
    def feature_maps(self) -> list[tuple[int, int]]:
        """(channels, side) of the features of each level."""
        return self.model.feature_maps

    def multiply_adds(self, encoder_only: bool = False) -> int:
        """Multiplications and additions of one sample, in pairs: convolutions, linear layers and attention."""
        return self.model.multiply_adds(encoder_only)


def _inner(config: UNetConfig | MlpConfig, size: UNetSize) -> SongUNet | DhariwalUNet | MlpNet:
    """F."""
    if isinstance(config, MlpConfig):
        return MlpNet(config, size)
    return SongUNet(config, size) if isinstance(config, SongConfig) else DhariwalUNet(config, size)


def class_labels(classes: Tensor, count: int) -> Tensor:
    """Class numbers int64[B] -> float32[B, count], one-hot."""
    return F.one_hot(classes.long(), count).float()


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1] in x's type."""
    return values.to(x.dtype)[:, None, None, None]
