"""Settings of what a distillation may have beside the published one: several steps, adapters, calibrated ratios."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from generative.config import Config
from generative.config_messages import combination


class StepsConfig(Config):
    """A student that is called several times, each time at less noise, which is added to what it gave before."""

    levels: list[PositiveFloat] = []
    """Noise levels after student_sigma, falling: [17.5, 2.53, 0.173] makes a student of four steps; []: one step."""
    input: Literal["simulated", "noised_data"] = "simulated"
    """What it learns from at these levels: its own samples, noised again, as when it draws (DMD2's backward
    simulation), or noised real samples (as released)."""

    @model_validator(mode="after")
    def _falling(self) -> StepsConfig:
        if any(a <= b for a, b in pairwise(self.levels)):
            raise combination(
                f"steps.levels={self.levels}", "noise levels that fall", "sort method.steps.levels, each once"
            )
        return self


class RecalibrationConfig(Config):
    """Slope and offset of the discriminator's logit in each bin of times, fitted on samples it was not trained on."""

    memory: float = Field(default=0.99, ge=0, lt=1)
    """How much of the fit's evidence is kept from one update of the discriminator to the next."""
    prior: PositiveFloat = 10.0
    """Pull towards the logit as it is, in samples or so."""
