"""Settings of changes of low rank. Free of torch, so that configurations load quickly."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from generative.config import Config


class LoraConfig(Config):
    """A frozen network with changes of low rank to its layers (LoRA, arXiv 2106.09685)."""

    rank: PositiveInt = 32
    """Of each change."""
    alpha: PositiveFloat = 32.0
    """Changes are multiplied by alpha / rank."""
    layers: list[str] = ["*"]
    """Which linear layers (and convolutions) are changed: shell patterns on their names in the network."""


class FineTuningConfig(LoraConfig):
    """Fine-tuning by changes of low rank (peft): the base is frozen, each linear layer in `layers` gets a change."""

    whole: list[str] = []
    """Parameters that are trained as they are beside the changes: shell patterns on their names. embedding.weight for a
    mask token that the base never learned (shift: true)."""
