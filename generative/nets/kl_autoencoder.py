"""KL autoencoders (Kingma and Welling 2014; Rombach et al. 2022): diffusers' AutoencoderKL behind one door.

The parts, and so all names of parameters, are those of diffusers; it is imported when a network is built.

Shapes: B images [C, H, W], latents [c, h, w].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generative.nets.kl_autoencoder_config import KlAutoencoderConfig, to_diffusers
from generative.nets.precision import wide

BOUNDS = (-30.0, 20.0)
"""Of ln(variance), as in the released code."""

Posterior = tuple[Tensor, Tensor]
"""Mean and ln(variance) of the latents, [B, c, h, w] each."""


class KlAutoencoder(nn.Module):
    """q(z|x) = N(mean(x), exp(logvar(x))) and x(z).

    Args:
        config: sizes.
        image: shape of an image.

    Raises:
        ConfigError: images that cannot be halved so often.
    """

    def __init__(self, config: KlAutoencoderConfig, image: tuple[int, ...]) -> None:
        from diffusers import AutoencoderKL

        super().__init__()
        self.latent_shape = config.latent_shape(image)
        made: Any = AutoencoderKL(**to_diffusers(config, image))
        self.encoder, self.decoder = made.encoder, made.decoder
        self.quant_conv, self.post_quant_conv = made.quant_conv, made.post_quant_conv

    def forward(
        self, x: Tensor, noise: Tensor | None = None, door: Literal["both", "encode", "decode"] = "both"
    ) -> Any:
        """What a door gives, in fp32 at least.

        Args:
            x: images [B, C, H, W] in [-1, 1]; latents where the door is "decode".
            noise: n of z = mean + std n, [B, c, h, w]; None: z = mean.
            door: "encode": (mean, logvar); "decode": images; "both": (images of z, mean, logvar).
        """
        if door == "decode":
            return self._decoded(x)
        moments = self.encoder(x)
        moments = moments if self.quant_conv is None else self.quant_conv(moments)
        mean, logvar = wide(moments).chunk(2, dim=1)
        logvar = logvar.clamp(*BOUNDS)
        if door == "encode":
            return mean, logvar
        return self._decoded(drawn(mean, logvar, noise)), mean, logvar

    def _decoded(self, z: Tensor) -> Tensor:
        inner = z if self.post_quant_conv is None else self.post_quant_conv(z)
        return wide(self.decoder(inner))


def drawn(mean: Tensor, logvar: Tensor, noise: Tensor | None) -> Tensor:
    """z = mean + exp(logvar / 2) n; the mean without noise."""
    return mean if noise is None else mean + (logvar / 2).exp() * noise


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, 1)) in nats, [B]: the sum over latents of (mean^2 + var - 1 - ln var) / 2."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def encoded(net: Callable[..., Any], x: Tensor, scale: float, noise: Tensor | None = None) -> Tensor:
    """Scaled latents of images; without noise their mean."""
    mean, logvar = net(x, door="encode")
    return scale * drawn(mean, logvar, noise)


def decoded(net: Callable[..., Any], z: Tensor, scale: float) -> Tensor:
    """Images of scaled latents."""
    found: Tensor = net(z / scale, door="decode")
    return found


@torch.no_grad()
def scaling_factor(net: Callable[..., Any], images: Iterable[Tensor]) -> float:
    """1 / standard deviation of latents drawn from the posteriors of images (Rombach et al. 2022).

    Over all elements: E[mean^2 + var] - E[mean]^2, without drawing any.

    Args:
        net: the autoencoder, in eval mode.
        images: batches [B, C, H, W].
    """
    first, second, count = 0.0, 0.0, 0
    for batch in images:
        mean, logvar = (part.double() for part in net(batch, door="encode"))
        first += float(mean.sum())
        second += float((mean.square() + logvar.exp()).sum())
        count += mean.numel()
    variance = second / max(1, count) - (first / max(1, count)) ** 2
    return 1 / math.sqrt(max(variance, 1e-12))
