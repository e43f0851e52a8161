"""Configuration of one-step distillation by f-divergences (arXiv 2502.15681)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from generative.config import Config, merged
from generative.config_messages import combination
from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.hub_names import source_parts
from generative.methods.f_distill.further_config import RecalibrationConfig, StepsConfig
from generative.methods.f_distill.latent_config import StudentConfig
from generative.methods.f_distill.presets import PRESETS, PresetName
from generative.nets.lora_config import LoraConfig

TRAINED = "net"
"""What the one network of a diffusion model's run is called."""


class RatioConfig(Config):
    """From the discriminator's logits to the weight h of each sample (two-stage normalisation)."""

    lower: PositiveFloat = 0.1
    """Smallest density ratio teacher / student; smaller ones are raised to it."""
    upper: PositiveFloat = 20.0
    """Largest one."""
    heads: Literal["geometric", "arithmetic"] = "geometric"
    """Mean over the ratios of several heads: geometric is the ratio of their mean logit, as released."""
    recalibration: RecalibrationConfig | None = None
    """Correct logits by a logistic fit in each bin before they become ratios; null: they are believed within the
    bounds. With it the bounds may be wider."""
    normalise: bool = True
    """First stage: divide ratios by their mean in the bin of their time, which should be 1."""
    bins: PositiveInt = 10
    """Bins of times."""
    binning: Literal["quantile", "linear"] = "quantile"
    """quantile: equal shares of the times that are drawn; linear: equal widths, as released, where the first of ten
    bins has 64 % of the samples."""
    decay: float = Field(default=0.5, ge=0, lt=1)
    """beta: how much of a bin's mean is kept when it is renewed."""
    minimum_count: PositiveInt = 8
    """Samples that a bin waits for before its mean is renewed; 1: as released, where a sample alone in its bin is
    divided by itself."""
    minimum_ess: float = Field(default=0.05, ge=0, lt=1)
    """Effective sample size of the weights, as a part of the batch, below which all weights are 1; 0: never."""

    @model_validator(mode="after")
    def _consistent(self) -> RatioConfig:
        if not self.lower < self.upper:
            raise combination(
                f"ratio.lower={self.lower} with ratio.upper={self.upper}",
                "a lower bound below the upper one",
                "swap method.ratio.lower and method.ratio.upper",
            )
        if not self.lower <= 1.0 <= self.upper:
            raise combination(
                f"ratio.lower={self.lower} and ratio.upper={self.upper} leave 1 out, the ratio of equal densities",
                "lower <= 1 <= upper",
                "widen method.ratio.lower and method.ratio.upper",
            )
        return self


class TimeConfig(Config):
    """At which noise teacher and student are compared: indices of a grid of times, each as likely."""

    sigma_min: PositiveFloat = 0.002
    """Smallest noise of the grid."""
    sigma_max: PositiveFloat = 80.0
    """Largest noise: that of the teacher's training."""
    rho: PositiveFloat = 7.0
    """How much denser the grid is at small noise."""
    size: int = Field(default=1000, ge=2)
    """Times of the grid."""
    first: NonNegativeInt = 2
    """Lowest index of a comparison."""
    last: NonNegativeInt = 998
    """Highest index."""
    critic_first: NonNegativeInt | None = None
    """Lowest index in the critic's update; null: as in the comparison."""
    critic_last: NonNegativeInt | None = None
    """Highest index there."""
    real: Literal["own", "shared"] = "own"
    """The discriminator sees real samples at times and noise of their own, or at those of the student's samples."""

    @property
    def critic_range(self) -> tuple[int, int]:
        """Lowest and highest index in the critic's update."""
        first = self.first if self.critic_first is None else self.critic_first
        return first, self.last if self.critic_last is None else self.critic_last

    @model_validator(mode="after")
    def _consistent(self) -> TimeConfig:
        if not self.sigma_min < self.sigma_max:
            raise combination(
                f"time.sigma_min={self.sigma_min} with time.sigma_max={self.sigma_max}",
                "sigma_min below sigma_max",
                "give the range of noise of the teacher's training",
            )
        for kind, (first, last) in (("", (self.first, self.last)), ("critic_", self.critic_range)):
            if not first <= last < self.size:
                raise combination(
                    f"time.{kind}first={first}, time.{kind}last={last} in a grid of time.size={self.size}",
                    "first <= last < size",
                    f"lower method.time.{kind}first or method.time.{kind}last, or raise method.time.size",
                )
        return self


class R1Config(Config):
    """Approximate R1: the discriminator's logits may not change much under small noise on real samples."""

    weight: float = Field(default=0.0, ge=0)
    """gamma; 100 to 1000 is advised for it by the released code, which has 0."""
    std: PositiveFloat = 0.1
    """Standard deviation of the small noise."""
    form: Literal["consistent", "released"] = "consistent"
    """consistent: noise on the noised samples that the logits are of; released: on the clean ones."""


class FDistillConfig(Config):
    """Distils a diffusion model to one step by an f-divergence (arXiv 2502.15681); rkl is DMD2."""

    name: Literal["f_distill"] = "f_distill"
    """Picks this method."""
    preset: PresetName = "default"
    """Values of the settings that are not given: default, or those of a published run: paper_*, fastgen_* (its released
    code), dmd2_*."""
    divergence: Literal["rkl", "sf", "js", "sh", "kl", "jf", "neyman", "pearson", "alpha"] = "js"
    """Reverse KL, softened reverse KL, Jensen-Shannon, squared Hellinger, forward KL, Jeffreys, Neyman, Pearson, or the
    alpha family, h = r^alpha."""
    alpha: float | None = Field(default=None, ge=-4, le=4)
    """Of the alpha family: -1 Neyman, 0 reverse KL, 1/2 Hellinger, 1 forward KL, 2 Pearson; larger covers more."""
    ratio: RatioConfig = RatioConfig()
    time: TimeConfig = TimeConfig()
    student_sigma: PositiveFloat = 80.0
    """Noise that the student starts from: its input is this times N(0, 1)."""
    sigma_data: PositiveFloat = 0.5
    """Standard deviation of the data, in the weight of the fake score's loss."""
    critic_updates: PositiveInt = 5
    """Updates of fake score and discriminator for each of the student."""
    gan_weight: float = Field(default=1e-3, ge=0)
    """lambda_G, weight of the adversarial loss of the student; at 0 the discriminator still gives the ratio."""
    fake_weight: Literal["edm", "eps", "none"] = "edm"
    """Weight of the fake score's loss over noise: that of the teacher's training, for EDM or for a network that
    predicts the noise (sigma^-2), or 1, as released."""
    r1: R1Config = R1Config()
    guidance: float = Field(default=1.0, ge=1)
    """Classifier-free guidance of the teacher; 1: none."""
    levels: list[NonNegativeInt] | None = None
    """Levels of the teacher's encoder that the discriminator looks at, 0 the finest; null: the coarsest."""
    backbone: Literal["teacher", "fake", "fake_frozen"] = "teacher"
    """Whose features the discriminator looks at: the teacher's (as released); the fake score's, which its loss trains
    too (DMD2), so that both are one network; or the fake score's, training heads alone."""
    critic: Literal["apart", "joint"] = "apart"
    """Fake score and discriminator in updates of their own, each on samples of its own; or joint: one network, one
    update, and one draw of the student for both. backbone=fake is always joint."""
    joint_weight: PositiveFloat = 1e-2
    """Of the discriminator's loss beside the fake score's in a joint update."""
    lora: LoraConfig | None = None
    """Make the fake score of the teacher and a few adapters; null: a network of its own."""
    steps: StepsConfig = StepsConfig()
    ema: list[float] = [0.9995]
    """Decay rates of the averages of the student, for each of its updates, each in (0, 1)."""
    ema_ramp: float | None = Field(default=0.05, gt=0)
    """An average's half-life is at most this part of the steps so far; null: the same from the start."""
    teacher: str | None = None
    """Run folder, checkpoint or export of the diffusion model (method edm) to distil; with
    method.network={name: stable_diffusion} the folder of a pipeline of diffusers, or its name on the hub."""
    teacher_weights: str = "ema"
    """ema: the first average of the teacher's run; trained; or one by name, as ema=0.999."""
    teacher_config: str | None = None
    """Configuration that trains the teacher; `generative train` does so first where there is no `teacher` yet."""
    teacher_steps: PositiveInt | None = None
    """Steps in which the teacher draws beside the student (Heun's method takes 2 N - 1 calls); null: its own."""
    teacher_sampling: EdmSamplingConfig | None = None
    """How it does so; null: read from the teacher, so that it draws as it does by itself; of a pipeline by heun,
    18 steps."""
    network: StudentConfig | None = None
    """Of teacher, student and fake score; null: read from the teacher, as are the four below."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """[C, R, R] of the teacher's samples."""
    classes: NonNegativeInt | None = None
    """Classes that the teacher is told; 0: none."""
    augment_labels: NonNegativeInt = 0
    """Inputs that the teacher has for augmentation, which there is none of here."""
    init_from: str | None = None
    """Start from a run folder or checkpoint (second stage of a training), not from the teacher. RUN#student@0.9995:
    from an average of its student; fake score and discriminator go on as they were trained."""
    init_heads: bool = True
    """Whether that run has a discriminator too; false: it had none (rkl with gan_weight=0), and a fresh one starts."""

    @property
    def source(self) -> str | None:
        """Where the weights of a teacher of ours are: "runs/edm/digits#net@0.999"; a published pipeline has its own."""
        if self.teacher is None:
            return None
        path, network, named = source_parts(self.teacher, TRAINED)
        average = named or self.teacher_weights.partition("=")[2]
        return f"{path}#{network}" + (f"@{average}" if average else "")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Put the preset beneath what is given."""
        if not isinstance(values, Mapping) or values.get("preset") not in PRESETS:
            return values
        return merged(PRESETS[values["preset"]].method, values)

    @model_validator(mode="after")
    def _consistent(self) -> FDistillConfig:
        if not all(0.0 < decay < 1.0 for decay in self.ema):
            raise combination(f"ema={self.ema}", "decay rates above 0 and below 1", "correct method.ema")
        if (self.divergence == "alpha") != (self.alpha is not None):
            raise combination(
                f"divergence={self.divergence} with alpha={self.alpha}",
                "a value of alpha for the alpha family, and for no other divergence",
                "set method.divergence=alpha and method.alpha, or leave method.alpha out",
            )
        if not self.time.sigma_min <= self.student_sigma <= self.time.sigma_max:
            raise combination(
                f"student_sigma={self.student_sigma} with times from time.sigma_min={self.time.sigma_min} to "
                f"time.sigma_max={self.time.sigma_max}",
                "noise that the teacher was trained on",
                "correct method.student_sigma; the teacher's largest noise is usual",
            )
        if self.steps.levels and self.steps.levels[0] >= self.student_sigma:
            raise combination(
                f"steps.levels={self.steps.levels} with student_sigma={self.student_sigma}",
                "levels below the noise that the student starts from",
                "leave the first level out of method.steps.levels: it is method.student_sigma",
            )
        if self.steps.levels and self.steps.levels[-1] < self.time.sigma_min:
            raise combination(
                f"steps.levels={self.steps.levels} with times from time.sigma_min={self.time.sigma_min}",
                "noise that the teacher was trained on",
                f"leave out levels below {self.time.sigma_min} in method.steps.levels",
            )
        if self.levels is not None and (not self.levels or len(set(self.levels)) < len(self.levels)):
            raise combination(
                f"levels={self.levels}",
                "one or more levels, each once",
                "correct method.levels, or leave it out for the coarsest level",
            )
        return self
