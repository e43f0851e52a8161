"""diffusers' AutoencoderKL for ours: the same names, but for attention in older files, and settings renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from generative.method import DataFacts
from generative.methods.kl_vae.config import KlVaeConfig
from generative.nets.kl_autoencoder_config import CLASS, from_diffusers, to_diffusers

OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention in files that diffusers wrote before its version 0.13."""


@dataclass(frozen=True)
class Imported:
    """What a folder holds.

    Args:
        config: of this network.
        facts: shape of its images.
        state: its state dict.
    """

    config: KlVaeConfig
    facts: DataFacts
    state: Mapping[str, Tensor]


def from_folder(told: Mapping[str, Any], state: Mapping[str, Tensor]) -> Imported:
    """Our configuration and network from config.json and weights; errors as `from_diffusers`."""
    network, image, scale = from_diffusers(told)
    config = KlVaeConfig(network=network, scaling_factor=scale)
    return Imported(
        config, DataFacts(sample_shape=image), {_name(key): _flat(key, value) for key, value in state.items()}
    )


def to_folder(config: KlVaeConfig, image: tuple[int, ...], scale: float) -> dict[str, Any]:
    """config.json for diffusers."""
    return {"_class_name": CLASS, **to_diffusers(config.network, image, scale)}


def _name(key: str) -> str:
    parts = key.split(".")
    if "attentions" in parts and len(parts) > 1 and parts[-2] in OLDER:
        parts[-2] = OLDER[parts[-2]]
    return ".".join(parts)


def _flat(key: str, value: Tensor) -> Tensor:
    """Pointwise convolutions of attention as the matrices that they are."""
    return value.flatten(1) if ".attentions." in key and value.dim() == 4 else value
