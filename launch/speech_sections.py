"""The sections `evaluate` and `sample` of a run that enhances speech."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from generative.config import Config


class SpeechEvaluation(Config):
    """Whole held-out utterances, enhanced and compared with the clean ones, beside the same figures of the noisy."""

    at_end: bool = True
    """Evaluate when training is complete."""
    part: Literal["test", "validation"] = "test"
    """Which utterances; where there is no test part, those to validate on."""
    files: PositiveInt | None = None
    """Most utterances, taken evenly over all; null: all."""
    metrics: tuple[str, ...] | None = None
    """si_sdr, si_sir, si_sar, level_error, stoi, estoi, pesq_nb, pesq_wb; null: all that fit and are installed."""
    batch_size: PositiveInt = 8
    """Utterances (or windows of long ones) in one network call; does not change results."""
    scorers: PositiveInt = 1
    """Processes that compute the figures, beside the enhancement."""
    seed: int = 0
    """Seed of the sampler's noise."""
    weights: Literal["ema", "trained"] = "ema"
    """Which weights are evaluated; ema takes the first average, where there is one."""


class SpeechSampling(Config):
    """Enhanced utterances to listen to."""

    at_end: bool = True
    """Enhance some when training is complete."""
    count: PositiveInt = 4
    """Number of held-out utterances."""
    seed: int = 0
    """Seed of the sampler's noise; how it samples is in `method.sampling`."""
    weights: Literal["ema", "trained"] = "ema"
    """Which weights enhance; ema takes the first average, where there is one."""
