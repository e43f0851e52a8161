"""Captioned images as the trainer sees them: one network, one optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from generative.method import Batch, Context, DataFacts, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.text_to_image.captions import Captions
from generative.methods.text_to_image.config import TextToImageConfig
from generative.methods.text_to_image.network import TextUNet, build_network, check, schedule, signal
from generative.methods.text_to_image.sampler import TextSampler
from generative.nets.flops import forward_flops
from generative.randomness import Streams

NET = "net"


@dataclass(frozen=True)
class TextToImage:
    """Noise prediction from images, noise levels and captions (DDPM, arXiv 2006.11239).

    Batches hold sample float[B, C, R, R] in [-1, 1], and label int64[B].
    """

    config: TextToImageConfig
    facts: DataFacts

    def __post_init__(self) -> None:
        check(self.config, self.facts)

    @cached_property
    def captions(self) -> Captions:
        """What is said of each class."""
        return Captions.of(self.config)

    @cached_property
    def signal(self) -> Tensor:
        """Cumulative product of 1 - beta, float32[levels]."""
        return signal(self.config.levels)

    def networks(self) -> Mapping[str, NetworkSpec]:
        """Text encoder and U-Net as one."""
        config = self.config
        build = partial(build_network, config, self.facts)
        return {NET: NetworkSpec(build, ema=tuple(config.ema), ema_ramp=config.ema_ramp, init_from=config.init_from)}

    def updates(self) -> Sequence[Update]:
        """One."""
        return [Update("denoise", trains=NET)]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of images."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over images of |eps - eps(x_t, t, caption)|^2 over the mean of all pixels.

        x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps, t uniform over the levels, eps standard normal.
        """
        ids, valid, streams = batch["sample_id"], batch["valid"], context.streams
        clean = batch["sample"].float()
        time = streams.integers("time", ids, self.config.levels)
        noise = streams.normal("noise", ids, clean.shape[1:])
        kept = self.signal.to(clean.device)[time][:, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        predicted = nets[NET](noisy, time, self.tokens(batch["label"], ids, streams))
        losses = (predicted.float() - noise).square().flatten(1).mean(1)
        value = torch.where(valid, losses, 0.0).sum()
        return Loss(value, {"denoising": Mean.of(torch.where(valid, losses, 0.0), valid)})

    def tokens(self, labels: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Captions int64[B, L]: each a template at random, or empty for `caption_dropout` of them."""
        template = streams.integers("template", ids, len(self.captions.templates))
        found = self.captions.table.to(labels.device)[labels, template]
        dropped = streams.uniform("caption_dropout", ids) < self.config.caption_dropout
        return torch.where(dropped[:, None], self.captions.encode([""]).to(labels.device), found)

    def state(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    def sampler(self, nets: Networks) -> TextSampler:
        """As `sampling` says."""
        net, config = nets[NET], self.config
        assert isinstance(net, TextUNet)
        assert self.facts.sample_shape is not None
        levels = partial(schedule, config.levels)
        return TextSampler(net, self.captions, config.sampling, levels, self.facts.sample_shape)

    @cached_property
    def _forward_flops(self) -> int:
        """Of one call of the network on one image, as torch counts matrix products and convolutions."""
        assert self.facts.sample_shape is not None
        given = torch.zeros(1, *self.facts.sample_shape), torch.zeros(1).long(), self.captions.encode([""])
        return forward_flops(partial(build_network, self.config, self.facts), *given)

    def flops(self, batch: Batch) -> int:
        """Of one step: backward twice the forward."""
        return 3 * self._forward_flops * len(batch["sample"])
