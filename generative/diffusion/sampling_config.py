"""How a denoiser's samples are drawn: the section `method.sampling`. Free of torch, so that settings load quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from generative.config import Config
from generative.config_messages import combination


class EdmSamplingConfig(Config):
    """How samples are drawn. What belongs to another sampler than the chosen one has no effect."""

    sampler: Literal["heun", "euler", "ddim", "dpm_solver_2s", "dpm_solver_2m"] = "heun"
    """heun: as published, of order 2. dpm_solver_2m: of order 2 with one network call a step."""
    steps: PositiveInt = 18
    """N. Network calls are 2 N - 1 (heun, dpm_solver_2s) or N; guidance doubles them."""
    sigma_min: float = Field(default=0.002, gt=0)
    """Last noise level before 0."""
    sigma_max: float = Field(default=80.0, gt=0)
    """First noise level."""
    rho: float = Field(default=7.0, gt=0)
    """How much shorter steps get at low noise."""
    churn: float = Field(default=0.0, ge=0)
    """S_churn of heun and euler: noise that is added over all steps; 0: deterministic."""
    churn_min: float = Field(default=0.0, ge=0)
    """S_tmin: lowest noise level at which some is added."""
    churn_max: float | None = Field(default=None, gt=0)
    """S_tmax: highest noise level at which some is added; null: all."""
    churn_noise: float = Field(default=1.0, gt=0)
    """S_noise: standard deviation of what is added."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """Of ddim: 0 deterministic, 1 ancestral."""
    guidance: float = Field(default=1.0, ge=0)
    """w: D(x) + w (D(x, class) - D(x)); 1: the class as it is. Needs a network that was trained with label_dropout."""

    @model_validator(mode="after")
    def _levels_fall(self) -> EdmSamplingConfig:
        if self.sigma_min >= self.sigma_max:
            raise combination(
                f"sampling.sigma_min={self.sigma_min} and sampling.sigma_max={self.sigma_max}",
                "sigma_min below sigma_max",
                "correct method.sampling.sigma_min or method.sampling.sigma_max",
            )
        return self

    @property
    def calls(self) -> int:
        """Network calls for a sample; guidance doubles them."""
        return 2 * self.steps - 1 if self.sampler in ("heun", "dpm_solver_2s") else self.steps

    @property
    def in_words(self) -> str:
        """The sampler, its steps, and the noise that it adds."""
        told = f"{self.sampler.replace('_', ' ')}, {self.steps} steps"
        if self.churn and self.sampler in ("heun", "euler"):
            upper = "" if self.churn_max is None else f" to {self.churn_max:g}"
            told += f", churn {self.churn:g} from {self.churn_min:g}{upper}, noise {self.churn_noise:g}"
        return told + (f", eta {self.eta:g}" if self.sampler == "ddim" and self.eta else "")
