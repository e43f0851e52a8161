"""EDM as the trainer sees it: one network, one optimizer, images and perhaps their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from generative.errors import ConfigError
from generative.method import (
    Average,
    Batch,
    Bins,
    Context,
    DataFacts,
    Loss,
    Networks,
    NetworkSpec,
    PowerProfile,
    Update,
)
from generative.methods.edm.augmentation import augmented, draw_transforms
from generative.methods.edm.config import AUTOENCODER, EdmConfig
from generative.methods.edm.loss import borders, denoising_loss, loss_by_noise, noise_levels
from generative.methods.edm.network import build_autoencoder, build_network, size_of
from generative.methods.edm.sampler import EdmSampler
from generative.nets.dropout import WORD
from generative.nets.edm_precond import class_labels
from generative.nets.edm_unet import UNetSize
from generative.nets.flops import forward_flops
from generative.nets.kl_autoencoder import decoded, encoded

NET = "net"


@dataclass(frozen=True)
class Edm:
    """Diffusion models with preconditioned denoisers (arXiv 2206.00364).

    Batches hold sample float[B, C, R, R] in [-1, 1], and label int64[B] where the network is told classes.
    """

    config: EdmConfig
    facts: DataFacts

    def __post_init__(self) -> None:
        size_of(self.config, self.facts)

    @cached_property
    def size(self) -> UNetSize:
        """What the network is told of the data."""
        return size_of(self.config, self.facts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what is denoised."""
        return self.size.channels, self.size.side, self.size.side

    @property
    def scale(self) -> float:
        """Of latents."""
        return (self.config.latents and self.config.latents.scaling_factor) or 1.0

    def networks(self) -> Mapping[str, NetworkSpec]:
        """The denoiser, which averages are kept of, and the frozen autoencoder where there is one."""
        config = self.config
        averages: tuple[Average, ...] = (*config.ema, *map(PowerProfile, config.ema_power))
        build = partial(build_network, config, self.facts)
        found = {NET: NetworkSpec(build, ema=averages, ema_ramp=config.ema_ramp, init_from=config.init_from)}
        if config.latents is not None:
            frozen = partial(build_autoencoder, config.latents, self.facts)
            found[AUTOENCODER] = NetworkSpec(frozen, trainable=False, init_from=config.latents.source)
        return found

    def curves(self) -> Mapping[str, Bins]:
        """Noise levels of the equally likely ranges that the loss is reported for."""
        edges = borders(self.config.noise_mean, self.config.noise_std)
        return {"loss_by_noise": Bins("noise level σ", tuple(edges.tolist()), log=True)}

    def updates(self) -> Sequence[Update]:
        """One."""
        return [Update("denoise", trains=NET)]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of images."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over images of their weighted denoising errors at random noise levels.

        Held-out images, whose loss is asked for without gradient, are not augmented. Of latents, one is drawn from the
        posterior of each image each time.
        """
        config, ids, valid, streams = self.config, batch["sample_id"], batch["valid"], context.streams
        clean, augment = batch["sample"].float(), None
        if self.size.augment:
            augment = clean.new_zeros(len(ids), self.size.augment)
        if config.augmentation.probability and torch.is_grad_enabled():
            transforms = draw_transforms(streams.within("augmentation"), ids, config.augmentation.probability)
            clean, augment = augmented(clean, transforms), transforms.labels()
        if config.latents is not None:
            drawn = streams.normal("posterior", ids, self.shape)
            with torch.no_grad():
                clean = encoded(nets[AUTOENCODER], clean, self.scale, drawn)
        normal = streams.normal("sigma", ids, (), torch.float64)
        sigma = noise_levels(normal, config.noise_mean, config.noise_std)
        noise = streams.normal("noise", ids, clean.shape[1:])
        noisy = clean + sigma.float()[:, None, None, None] * noise
        denoised = nets[NET](noisy, sigma.float(), self._labels(batch, context), augment, self._seeds(context, ids))
        losses = denoising_loss(denoised, clean, sigma, config.sigma_data)
        value = torch.where(valid, losses, 0.0).sum()
        return Loss(value, {"loss_by_noise": loss_by_noise(losses, normal, valid)})

    def _labels(self, batch: Batch, context: Context) -> Tensor | None:
        """One-hot classes float32[B, K], with zeros where the class is not told; None: the network knows none."""
        if not self.size.classes:
            return None
        if "label" not in batch:
            raise ConfigError(
                f"a network that is told {self.size.classes} classes, and data without labels",
                expected="data with classes",
                remedy="set method.classes=0, or data.classes=true (folder) or data.label_column (hub)",
            )
        labels = class_labels(batch["label"], self.size.classes)
        if self.config.label_dropout:
            drawn = context.streams.uniform("label_dropout", batch["sample_id"])
            labels = labels * (drawn >= self.config.label_dropout)[:, None]
        return labels

    def _seeds(self, context: Context, ids: Tensor) -> Tensor | None:
        """Of the dropout, int64[B]; None: there is none."""
        return context.streams.integers("dropout", ids, WORD) if self.config.network.dropout else None

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def sampler(self, nets: Networks) -> EdmSampler:
        """As `sampling` says.

        Raises:
            ConfigError: a model of latents without its autoencoder.
        """
        net = nets[NET]
        assert isinstance(net, torch.nn.Module)
        if self.config.latents is None:
            return EdmSampler(net, self.config.sampling, self.size)
        if AUTOENCODER not in nets:
            raise ConfigError(
                "a diffusion model of latents alone, whose samples are no images",
                expected="its autoencoder beside it, as its run has it",
                remedy="draw from the run: generative sample RUN",
            )
        return EdmSampler(net, self.config.sampling, self.size, partial(decoded, nets[AUTOENCODER], scale=self.scale))

    @cached_property
    def _multiply_adds(self) -> int:
        """Of one call of the network on one image."""
        with torch.device("meta"):
            return build_network(self.config, self.facts).multiply_adds()

    @cached_property
    def _encoding_flops(self) -> int:
        """Of one image; 0 for pixels."""
        if self.config.latents is None:
            return 0
        build = partial(build_autoencoder, self.config.latents, self.facts)
        return forward_flops(build, torch.zeros(1, *(self.facts.sample_shape or ())), door="encode")

    def flops(self, batch: Batch) -> int:
        """Of one step: two for each multiply-add, backward twice the forward; images are encoded forwards only."""
        return (2 * 3 * self._multiply_adds + self._encoding_flops) * len(batch["sample"])
