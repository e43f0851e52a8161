"""The network: a text encoder as CLIP's and a U-Net with cross-attention, of transformers and diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from generative.data.packages import needed
from generative.errors import ConfigError
from generative.method import DataFacts
from generative.methods.text_to_image.captions import END, START, Captions
from generative.methods.text_to_image.config import TextToImageConfig

NORM_GROUPS = 8


class TextUNet(nn.Module):
    """eps(x_t, t, caption).

    Args:
        text: CLIPTextModel.
        unet: UNet2DConditionModel.
    """

    def __init__(self, text: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text, self.unet = text, unet

    def forward(self, noisy: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """float32[B, C, R, R] from x_t of this shape, t int64[B] and tokens int64[B, L]."""
        states = self.text(input_ids=tokens).last_hidden_state
        found: Tensor = self.unet(noisy, time, encoder_hidden_states=states).sample
        return found


def build_network(config: TextToImageConfig, facts: DataFacts) -> TextUNet:
    """Fresh weights.

    Raises:
        ConfigError: data without classes, with another number of them, or images that are not square or too small.
        DataError: diffusers or transformers is not installed.
    """
    check(config, facts)
    more = {"extra": "erase", "by": "method.name=text_to_image", "instead": "method.name=edm"}
    transformers = needed("transformers", package="transformers", **more)
    diffusers = needed("diffusers", package="diffusers", **more)
    text = transformers.CLIPTextModel(text_config(config))
    unet = diffusers.UNet2DConditionModel(**unet_config(config, facts))
    return TextUNet(text, unet)


def check(config: TextToImageConfig, facts: DataFacts) -> None:
    """Refuse data that do not go with the words."""
    if facts.classes != len(config.words):
        raise ConfigError(
            f"method.words names {len(config.words)} classes, and the data have {facts.classes or 'none'}",
            expected="a word for each class of the data",
            remedy="correct method.words, or take labelled data (data.name=digits)",
        )
    shape, halvings = facts.sample_shape or (), len(config.network.channels) - 1
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] % 2**halvings:
        raise ConfigError(
            f"samples of the shape {list(shape)} with {halvings + 1} levels of the network",
            expected=f"square images with a side that can be halved {halvings} times",
            remedy="set data.size and data.resize, or shorten method.network.channels",
        )


def text_config(config: TextToImageConfig) -> Any:
    """Of CLIPTextModel."""
    from transformers import CLIPTextConfig

    network, captions = config.network, Captions.of(config)
    numbers = {word: i for i, word in enumerate(captions.vocabulary)}
    return CLIPTextConfig(
        vocab_size=len(captions.vocabulary),
        hidden_size=network.text_width,
        intermediate_size=network.text_width,
        projection_dim=network.text_width,
        num_hidden_layers=network.text_layers,
        num_attention_heads=network.text_heads,
        max_position_embeddings=network.length,
        bos_token_id=numbers[START],
        eos_token_id=numbers[END],
        pad_token_id=numbers[END],
    )


def unet_config(config: TextToImageConfig, facts: DataFacts) -> dict[str, Any]:
    """Of UNet2DConditionModel."""
    channels = list(config.network.channels)
    assert facts.sample_shape is not None
    below = len(channels) - 1
    return {
        "sample_size": facts.sample_shape[1],
        "in_channels": facts.sample_shape[0],
        "out_channels": facts.sample_shape[0],
        "block_out_channels": channels,
        "layers_per_block": config.network.layers,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * below),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": (*["CrossAttnUpBlock2D"] * below, "UpBlock2D"),
        # for diffusers this is the number of heads, whatever its name says
        "attention_head_dim": tuple(c // config.network.head_width for c in channels),
        "cross_attention_dim": config.network.text_width,
        "norm_num_groups": NORM_GROUPS,
    }


def schedule(levels: int) -> Any:
    """DDIM's scheduler over DDPM's variances (Ho et al. 2020): linear, from 1e-4 to 0.02."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=levels,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=True,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def signal(levels: int) -> Tensor:
    """The cumulative product of 1 - beta_t, float32[levels]."""
    found: Tensor = schedule(levels).alphas_cumprod
    return found.to(torch.float32)
