"""Samples of a trained denoiser.

Shapes: B samples [C, R, R], K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generative.diffusion.denoising_samplers import Denoiser
from generative.diffusion.sampling import draw
from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.method import Batch
from generative.nets.edm_precond import class_labels
from generative.nets.edm_unet import UNetSize
from generative.randomness import Streams


@dataclass(frozen=True)
class EdmSampler:
    """One sample a row: from noise of its sample id, along the grid of `sampling`.

    Args:
        net: the denoiser, in eval mode, so that a sample does not depend on its batch.
        sampling: how.
        size: of samples.
        decode: from what is denoised to images, where that is not the same.
    """

    net: nn.Module
    sampling: EdmSamplingConfig
    size: UNetSize
    decode: Callable[[Tensor], Tensor] | None = None

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float32[B, C, R, R].

        Args:
            condition: sample_id int64[B]; label int64[B], without which classes are drawn uniformly.
            streams: of the noise.
        """
        ids = condition["sample_id"]
        shape = (self.size.channels, self.size.side, self.size.side)
        device = next(self.net.parameters()).device
        s = self.sampling
        labels = self._labels(condition, streams)
        denoise = guided(self.net, None if labels is None else labels.to(device), s.guidance)

        def noise(step: int) -> Tensor:
            return streams.at(step).normal("churn", ids, shape).to(device)

        found = draw(s, denoise, streams.normal("z", ids, shape).to(device), noise)
        return found if self.decode is None else self.decode(found.float())

    def _labels(self, condition: Batch, streams: Streams) -> Tensor | None:
        """One-hot, float32[B, K]; None: the network knows no classes."""
        if not self.size.classes:
            return None
        given = condition.get("label")
        drawn = streams.integers("label", condition["sample_id"], self.size.classes) if given is None else given
        return class_labels(drawn, self.size.classes)


def guided(net: Callable[..., Tensor], labels: Tensor | None, weight: float) -> Denoiser:
    """D(x, s) of one class a row, or D(x, s) + weight (D(x, s, class) - D(x, s)) where the weight is not 1.

    Source: Ho and Salimans 2021 (their 1 + w is the weight here). The network sees x in fp32.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x, sigma = x.float(), sigma.float()
        if labels is None or weight == 1:
            return net(x, sigma, labels)
        both = net(torch.cat((x, x)), torch.cat((sigma, sigma)), torch.cat((labels, torch.zeros_like(labels))))
        with_class, without = both.double().chunk(2)
        return without + weight * (with_class - without)

    return denoise
