"""Configuration of masked diffusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from generative.config import Config
from generative.config_messages import combination
from generative.nets.transformer_config import TransformerConfig

TimeSampler = Literal["iid", "stratified", "exact"]
ScheduleName = Literal["linear", "cosine", "loglinear"]


class SamplingConfig(Config):
    """How samples are drawn from the trained model (paper, section 5)."""

    name: Literal["ancestral", "confidence"] = "ancestral"
    """ancestral: positions are unmasked at random times; confidence: the most confident predictions first."""
    steps: int = Field(64, ge=1)
    """Steps from fully masked to clean. Fewer steps commit more tokens at a time, independently of each other."""
    temperature: float = Field(1.0, ge=0.0)
    """Softmax temperature of the token draws; 0 takes the most probable token."""
    guidance: float = Field(0.0, ge=0.0)
    """Unsupervised classifier-free guidance scale w (0: none); doubles the network's work."""
    token_noise: Literal["inverse_cdf", "gumbel"] = "inverse_cdf"
    """inverse_cdf: one uniform a token; gumbel: one a token and vocabulary entry, as in the released code."""


class MaskedDiffusionConfig(Config):
    """Masked diffusion language model (arXiv 2410.18514): a bidirectional transformer that fills in masked tokens."""

    name: Literal["masked_diffusion"] = "masked_diffusion"
    """Picks this method."""
    network: TransformerConfig = TransformerConfig()
    """Size and numerics of the network."""
    time_sampler: TimeSampler = "stratified"
    """Masking levels of a global batch: iid (paper); stratified: spread evenly, each token masked independently;
    exact: spread evenly, an exact number of tokens masked."""
    schedule: ScheduleName = "linear"
    """Noise schedule (linear in the paper). `exact` has no time and takes linear only."""
    epsilon: float = Field(1e-3, ge=0.0, lt=1.0)
    """Smallest time: t = (1 - epsilon) u + epsilon, so that weights 1/p stay below 1/epsilon."""
    random_length_ratio: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the samples that are cut to a length drawn uniformly from 1 .. sequence length (0.01 published)."""
    sampling: SamplingConfig = SamplingConfig()
    """Default settings of the sampler."""
    ema: list[float] = []
    """Decay rates of the weight averages to keep, each in (0, 1)."""
    init_from: str | None = None
    """Start from a run folder, checkpoint or export, optionally followed by "#NAME" of a network in it."""

    @model_validator(mode="after")
    def _consistent(self) -> MaskedDiffusionConfig:
        if self.time_sampler == "exact" and self.schedule != "linear":
            raise combination(
                f"time_sampler=exact draws counts uniformly and cannot follow schedule={self.schedule}",
                "schedule=linear with time_sampler=exact",
                "set method.schedule=linear, or method.time_sampler=stratified",
            )
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        return self
