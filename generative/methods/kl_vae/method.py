"""KL autoencoders as the trainer sees them: one network, one optimizer, images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from generative.data.packages import needed
from generative.method import Batch, Context, DataFacts, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.kl_vae.config import KlVaeConfig
from generative.nets.flops import forward_flops
from generative.nets.kl_autoencoder import KlAutoencoder, divergence
from generative.randomness import Streams

NET = "autoencoder"


def build_network(config: KlVaeConfig, facts: DataFacts) -> KlAutoencoder:
    """Fresh weights.

    Raises:
        ConfigError: samples that are no images, or of sides that cannot be halved so often.
        DataError: diffusers is not installed.
    """
    config.network.latent_shape(facts.sample_shape)
    needed("diffusers", package="diffusers", extra="erase", by="method.name=kl_vae", instead="method.name=edm")
    assert facts.sample_shape is not None
    return KlAutoencoder(config.network, facts.sample_shape)


@dataclass(frozen=True)
class KlVae:
    """Auto-Encoding Variational Bayes (arXiv 1312.6114) with the weights of latent diffusion (arXiv 2112.10752).

    Batches hold sample float[B, C, H, W] in [-1, 1].
    """

    config: KlVaeConfig
    facts: DataFacts
    reconstructs = True
    """Its samples are held-out images through both networks."""

    def __post_init__(self) -> None:
        self.config.network.latent_shape(self.facts.sample_shape)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[c, h, w]."""
        return self.config.network.latent_shape(self.facts.sample_shape)

    def networks(self) -> Mapping[str, NetworkSpec]:
        """Encoder and decoder as one."""
        config = self.config

        def build() -> nn.Module:
            return build_network(config, self.facts)

        return {NET: NetworkSpec(build, ema=tuple(config.ema), ema_ramp=config.ema_ramp, init_from=config.init_from)}

    def updates(self) -> Sequence[Update]:
        """One."""
        return [Update("reconstruct", trains=NET)]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of images."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over images of (sum over pixels of |x(z) - x|^p + kl_weight KL) / pixels, z = mean + std n."""
        clean, valid = batch["sample"].float(), batch["valid"]
        noise = context.streams.normal("posterior", batch["sample_id"], self.latent_shape)
        made, mean, logvar = nets[NET](clean, noise)
        difference = made - clean
        square = difference.square().flatten(1).mean(1)
        error = square if self.config.reconstruction == "squared" else difference.abs().flatten(1).mean(1)
        kl = divergence(mean, logvar)
        losses = error + self.config.kl_weight * kl / clean[0].numel()
        value = torch.where(valid, losses, 0.0).sum()
        return Loss(
            value,
            {
                "squared_error": Mean.of(torch.where(valid, square, 0.0), valid),
                "kl_by_latent": Mean.of(torch.where(valid, kl / mean[0].numel(), 0.0), valid),
            },
        )

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def sampler(self, nets: Networks) -> Reconstruction:
        """Images from those that it is shown: latents drawn from N(0, 1) are no images, where the KL weighs little."""
        return Reconstruction(nets[NET])

    @cached_property
    def _forward_flops(self) -> int:
        """Of one image through encoder and decoder."""
        assert self.facts.sample_shape is not None
        return forward_flops(lambda: build_network(self.config, self.facts), torch.zeros(1, *self.facts.sample_shape))

    def flops(self, batch: Batch) -> int:
        """Of one step: backward twice the forward."""
        return 3 * self._forward_flops * len(batch["sample"])


@dataclass(frozen=True)
class Reconstruction:
    """x(mean(x)): an image through its most probable latents and back."""

    net: Callable[..., Any]

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float32[B, C, H, W] for sample float[B, C, H, W]; without noise."""
        found: Tensor = self.net(condition["sample"])[0]
        return found.float()
