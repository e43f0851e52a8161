"""EDM networks as the golden data have them: weights by formula, names and settings from configs.json."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from generative.nets.edm_config import DhariwalConfig, SongConfig
from generative.nets.edm_precond import EdmNetwork
from generative.nets.edm_unet import UNetSize

GOLDEN = Path(__file__).parents[1] / "golden" / "f_distill"


def formula_weights(net: torch.nn.Module) -> None:
    """Fill a network: with k the place of a parameter among the sorted names and j that of an element in it,
    v = sin(1 + .37 k + 2.399963229728653 j), times sqrt(2 / fan_in) in matrices, .1 v in biases, 1 + .1 v in other
    vectors; fixed frequencies are 2 + 1.5 j."""
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(net.named_parameters())):
            j = torch.arange(parameter.numel(), dtype=torch.float64)
            v = torch.sin(1 + 0.37 * k + 2.399963229728653 * j).view(parameter.shape)
            if parameter.ndim >= 2:
                v = v * math.sqrt(2 / math.prod(parameter.shape[1:]))
            else:
                v = 0.1 * v if name.endswith("bias") else 1 + 0.1 * v
            parameter.copy_(v)
        for name, buffer in net.named_buffers():
            if name.endswith("freqs"):
                buffer.copy_(2 + 1.5 * torch.arange(len(buffer)))


def golden_network(name: str) -> EdmNetwork:
    """ "song_ddpmpp" or "dhariwal", with the weights of the formula, in eval mode."""
    told = json.loads((GOLDEN / "configs.json").read_text())[name]
    config = unet_config(told)
    net = EdmNetwork(
        config, UNetSize(told["img_resolution"], told["img_channels"], told["label_dim"], told["augment_dim"])
    )
    formula_weights(net)
    return net.eval()


def unet_config(told: dict) -> SongConfig | DhariwalConfig:
    """Ours for the released settings."""
    common = {
        "width": told["model_channels"],
        "multipliers": told["channel_mult"],
        "blocks": told["num_blocks"],
        "attention": told["attn_resolutions"],
        "dropout": told["dropout"],
    }
    if told["model_type"] == "DhariwalUNet":
        return DhariwalConfig(**common, embedding_multiplier=told["channel_mult_emb"])
    return SongConfig(
        **common,
        embedding=told["embedding_type"],
        noise_multiplier=told["channel_mult_noise"],
        encoder=told["encoder_type"],
        decoder=told["decoder_type"],
        filter=told["resample_filter"],
    )
