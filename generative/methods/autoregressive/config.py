"""Configuration of the autoregressive baseline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.nets.lora_config import FineTuningConfig
from generative.nets.transformer_config import TransformerConfig


class AutoregressiveSamplingConfig(Config):
    """How text is drawn from the trained model."""

    temperature: float = Field(1.0, ge=0.0)
    """Softmax temperature of the token draws; 0 takes the most probable token."""
    top_k: int | None = Field(None, ge=1)
    """Tokens are drawn from so many of the most probable only; null: from all."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Tokens are drawn from the nucleus of this probability only; 1: from all."""
    stop_at_eos: bool = False
    """A sample ends at the first end of text that it draws, and is filled up with that."""


class AutoregressiveConfig(Config):
    """Next-token prediction by the causal form of the same network: the baseline in arXiv 2410.18514."""

    name: Literal["autoregressive"] = "autoregressive"
    """Picks this method."""
    network: TransformerConfig = TransformerConfig()
    """Size and numerics of the network."""
    sampling: AutoregressiveSamplingConfig = AutoregressiveSamplingConfig()
    """Default settings of the sampler."""
    lora: FineTuningConfig | None = None
    """Train changes of low rank to the weights of `init_from`, which are frozen; null: train all weights."""
    ema: list[float] = []
    """Decay rates of the weight averages to keep, each in (0, 1)."""
    init_from: str | None = None
    """Start from a run folder, checkpoint or export, optionally followed by "#NAME" of a network in it."""

    @model_validator(mode="after")
    def _consistent(self) -> AutoregressiveConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        return self
