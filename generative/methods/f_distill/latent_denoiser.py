"""diffusers' U-Net of a discrete diffusion as a denoiser in EDM's parametrisation.

A discrete diffusion x_t = alpha_i x + sigma_i eps is, divided by alpha_i, EDM's x + s_i eps, s_i = sigma_i / alpha_i;
f-divergences and the direction of the loss are the same for both. So the network is told s, finds the step i, and
answers in x0 form: x - s eps, or alpha_i x_t - sigma_i v. One step from s_999 = 14.6 amplifies errors of eps 14.6
times: this arithmetic is in float64, whatever the U-Net computes in.

Shapes: latents [B, C, R, R], text embeddings [B, L, D], N steps of the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generative.errors import ConfigError
from generative.nets.precision import wide

UNKNOWN = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
    "center_input_sample",
)
"""Settings of diffusers' U-Net that neither Stable Diffusion 1.5 nor 2.1 has, and that `LatentDenoiser` knows not."""


@dataclass(frozen=True)
class Schedule:
    """The discrete diffusion that a network was trained on.

    Args:
        alphas_cumprod: float64[N], alpha_i^2, falling, above 0.
        velocity: the network predicts v = alpha eps - sigma x, not eps.
    """

    alphas_cumprod: Tensor
    velocity: bool

    @property
    def levels(self) -> Tensor:
        """s_i, float64[N], ascending."""
        return ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()

    def steps(self, sigma: Tensor) -> Tensor:
        """The step whose level is nearest in ratio, int64[B]."""
        levels = self.levels.to(sigma.device)
        return torch.bucketize(sigma.double().contiguous(), (levels[:-1] * levels[1:]).sqrt())


class LatentDenoiser(nn.Module):
    """D(x, s, text) around diffusers' UNet2DConditionModel; see `denoiser.Call`. Features: of each down block, and mid.

    Args:
        unet: as the configuration says.
        schedule: of its training.

    Raises:
        ConfigError: a U-Net with more inputs than latents, step and text.
    """

    def __init__(self, unet: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        settings: Any = unet.config
        further = [key for key in UNKNOWN if settings.get(key)]
        if further:
            raise ConfigError(
                f"a U-Net with {further[0]}={settings.get(further[0])}",
                "one of the form of Stable Diffusion 1.5 or 2.1, which is told its step and a text",
                "take another teacher",
            )
        self.unet: Any = unet
        self.schedule = schedule

    @property
    def activation_checkpointing(self) -> bool:
        """Whether the backward pass computes activations again."""
        return bool(self.unet.is_gradient_checkpointing)

    @activation_checkpointing.setter
    def activation_checkpointing(self, on: bool) -> None:
        (self.unet.enable_gradient_checkpointing if on else self.unet.disable_gradient_checkpointing)()

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        *,
        features: Sequence[int] | None = None,
        encoder_only: bool = False,
        decoder_gradient: bool = True,
    ) -> Any:
        """As `denoiser.Call`.

        Args:
            x: [B, C, R, R], x + s eps.
            sigma: [B], s, levels of the schedule.
            text: [B, L, D], embeddings of the prompts.
            features: which of the maps are wanted, 0 the first down block's; the last is that of the middle block.
            encoder_only: give these alone.
            decoder_gradient: False: the estimate is a constant.
        """
        x, dtype = wide(x), self.unet.dtype
        index = self.schedule.steps(sigma)
        squares = self.schedule.alphas_cumprod.to(x.device)[index].view(-1, 1, 1, 1)
        alpha, noise = squares.sqrt(), (1 - squares).sqrt()
        inner, text = (alpha * x.double()).to(dtype), text.to(dtype)
        embedding = self.unet.time_embedding(self.unet.time_proj(index).to(dtype))
        skips, maps = self._encode(inner, embedding, text)
        found = [maps[level] for level in features or ()]
        if encoder_only:
            return found
        with torch.set_grad_enabled(torch.is_grad_enabled() and decoder_gradient):
            raw = self._decode(maps[-1], skips, embedding, text).double()
            if self.schedule.velocity:
                estimate = alpha * (alpha * x.double()) - noise * raw
            else:
                estimate = x.double() - noise / alpha * raw
            estimate = estimate.to(x.dtype)
        return estimate if features is None else (estimate, found)

    def _encode(self, x: Tensor, embedding: Tensor, text: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Skip connections, and what the down blocks and the middle block give."""
        x = self.unet.conv_in(x)
        skips, maps = [x], []
        for block in self.unet.down_blocks:
            x, further = block(hidden_states=x, temb=embedding, **_told(block, text))
            skips += further
            maps.append(x)
        maps.append(self.unet.mid_block(x, embedding, **_told(self.unet.mid_block, text)))
        return skips, maps

    def _decode(self, x: Tensor, skips: list[Tensor], embedding: Tensor, text: Tensor) -> Tensor:
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            skips, own = skips[:-count], tuple(skips[-count:])
            x = block(hidden_states=x, temb=embedding, res_hidden_states_tuple=own, **_told(block, text))
        if self.unet.conv_norm_out is not None:
            x = self.unet.conv_act(self.unet.conv_norm_out(x))
        read: Tensor = self.unet.conv_out(x)
        return read


def _told(block: nn.Module, text: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
