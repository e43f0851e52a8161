"""Samples by DDIM with classifier-free guidance; the loop serves pipelines on the disk too.

Shapes: B samples [C, R, R], captions of L tokens, width d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from generative.method import Batch
from generative.methods.text_to_image.captions import Captions
from generative.methods.text_to_image.config import TextSamplingConfig
from generative.methods.text_to_image.network import TextUNet
from generative.randomness import Streams

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t [B, ...], t int64[B], states [B, L, d]) -> eps [B, ...]."""


def predictor(unet: Any) -> Predict:
    """That of a UNet2DConditionModel."""

    def predict(x: Tensor, time: Tensor, states: Tensor) -> Tensor:
        found: Tensor = unet(x, time, encoder_hidden_states=states).sample
        return found

    return predict


@torch.no_grad()
def ddim(
    predict: Predict, noise: Tensor, states: Tensor, empty: Tensor, scheduler: Any, sampling: TextSamplingConfig
) -> Tensor:
    """float32[B, C, R, R] in [-1, 1] from standard normal noise of this shape.

    eps = eps(x, empty) + w (eps(x, states) - eps(x, empty)), in one call of 2 B rows.

    Args:
        predict: eps.
        noise: x_T.
        states: embeddings of the captions, [B, L, d].
        empty: that of the empty caption, [L, d].
        scheduler: DDIMScheduler.
        sampling: steps and w.
    """
    scheduler.set_timesteps(sampling.steps)
    both, x = torch.cat([empty.expand_as(states), states]), noise
    for t in scheduler.timesteps:
        time = torch.full((2 * len(x),), int(t), device=x.device)
        without, told = predict(torch.cat([x, x]), time, both).chunk(2)
        x = scheduler.step(without + sampling.guidance * (told - without), t, x, eta=0.0).prev_sample
    return x.clamp(-1, 1)


@dataclass(frozen=True)
class TextSampler:
    """One sample a row: of its class, in the words of the first template.

    Args:
        net: the trained network, in eval mode.
        captions: words and templates.
        sampling: how.
        scheduler: makes the noise levels.
        shape: of a sample.
    """

    net: TextUNet
    captions: Captions
    sampling: TextSamplingConfig
    scheduler: Callable[[], Any]
    shape: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, condition: Batch, streams: Streams) -> Tensor:
        """float32[B, C, R, R].

        Args:
            condition: sample_id int64[B]; label int64[B], without which classes are drawn uniformly.
            streams: of the noise.
        """
        ids = condition["sample_id"]
        given = condition.get("label")
        labels = streams.integers("label", ids, len(self.captions.words)) if given is None else given
        device = next(self.net.parameters()).device
        tokens = torch.cat([self.captions.table[labels.cpu(), 0], self.captions.encode([""])]).to(device)
        states = self.net.text(input_ids=tokens).last_hidden_state
        noise = streams.normal("z", ids, self.shape).to(device)
        return ddim(predictor(self.net.unet), noise, states[:-1], states[-1], self.scheduler(), self.sampling).float()
