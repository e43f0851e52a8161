"""f-distill as the trainer sees it: a student, the fake score that follows it, a frozen teacher, a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from generative.diffusion.sampling_config import EdmSamplingConfig
from generative.errors import ConfigError
from generative.hub_names import source_parts
from generative.method import Batch, Bins, Context, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.f_distill.backbone import FAKE, HEADS, JointCritic, Views
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.costs import step_multiply_adds
from generative.methods.f_distill.critic import (
    Noised,
    Trial,
    discriminator_loss,
    draw_noised,
    fake_score_loss,
    joint_loss,
    real_samples,
    student_samples,
    sum_of_valid,
)
from generative.methods.f_distill.denoiser import DenoiserParts
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence, alpha_divergence
from generative.methods.f_distill.losses import distribution_matching, gan_generator
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.sampler import Steps, StudentSampler, training_samples
from generative.methods.f_distill.teacher_sampler import TeacherSampler
from generative.methods.f_distill.times import TimeGrid
from generative.nets.feature_heads import UnetHeads

TEACHER = "network:teacher"


@dataclass(frozen=True)
class FDistill:
    """The method of arXiv 2502.15681; DMD2 with divergence rkl, DMD with gan_weight 0 besides.

    Batches hold sample float[B, *shape], and label int64[B] where the teacher knows classes.

    Args:
        config: settings.
        parts: the kind of network that is distilled.
        given: a divergence of one's own in place of `config.divergence`; see `divergences.divergence_of`.
    """

    config: FDistillConfig
    parts: DenoiserParts
    given: Divergence | None = None
    product: ClassVar[str] = "student"
    """The network that is exported unless another is asked for."""

    def __post_init__(self) -> None:
        self.parts.chosen(self.config.levels)
        self.parts.check_levels(Steps.of(self.config, self.parts).levels)
        if self.config.guidance != 1 and not self.parts.guidable:
            raise ConfigError(
                f"method.guidance={self.config.guidance} with a teacher that is told nothing it could leave out",
                "guidance=1, or a teacher of classes or texts",
                "leave out method.guidance",
            )

    @cached_property
    def divergence(self) -> Divergence:
        """D_f(teacher || student)."""
        if self.given is not None:
            return self.given
        if self.config.divergence == "alpha":
            assert self.config.alpha is not None
            return alpha_divergence(self.config.alpha)
        return DIVERGENCES[self.config.divergence]

    @property
    def weighted(self) -> bool:
        """Whether samples have weights; those of reverse KL are 1 whatever the ratio."""
        return self.given is not None or not (self.config.divergence == "rkl" or self.config.alpha == 0)

    @property
    def judged(self) -> bool:
        """Whether there is a discriminator: for weights, for the adversarial loss, or both."""
        return self.weighted or self.config.gan_weight > 0

    @cached_property
    def levels(self) -> list[int]:
        """Of the teacher's encoder that the discriminator looks at."""
        return self.parts.chosen(self.config.levels)

    @cached_property
    def views(self) -> Views:
        """How the networks are asked."""
        return Views(self.config, self.parts, self.levels, self.judged)

    def grid(self, first: int, last: int) -> TimeGrid:
        """Times of which those with indices first .. last are drawn."""
        time, known = self.config.time, self.parts.noise_levels
        if known:
            return TimeGrid(known[0], known[-1], time.rho, len(known), first, last, known)
        return TimeGrid(time.sigma_min, time.sigma_max, time.rho, time.size, first, last)

    @cached_property
    def matching_times(self) -> TimeGrid:
        """At which student and teacher are compared."""
        return self.grid(self.config.time.first, self.config.time.last)

    @cached_property
    def critic_times(self) -> TimeGrid:
        """At which fake score and discriminator are trained."""
        return self.grid(*self.config.time.critic_range)

    @cached_property
    def weights(self) -> RatioWeights:
        """From logits to weights."""
        ratio, grid = self.config.ratio, self.matching_times
        edges = grid.quantile_edges(ratio.bins) if ratio.binning == "quantile" else grid.linear_edges(ratio.bins)
        return RatioWeights(ratio, self.divergence, edges)

    def curves(self) -> Mapping[str, Bins]:
        """Noise levels of the bins of density ratios; the critic's times beyond these count in the bins at the ends."""
        if not self.judged:
            return {}
        borders = self.matching_times.borders(self.weights.edges)
        bins = Bins("noise level σ", tuple(borders.tolist()), log=True)
        return dict.fromkeys(("ratio_by_time", "ess_by_time", "auc_by_time"), bins)

    def networks(self) -> Mapping[str, NetworkSpec]:
        """Student and fake score start as the teacher."""
        config, build, pretrained = self.config, self.parts.build, self.parts.pretrained
        found = {
            "student": NetworkSpec(
                build, ema=tuple(config.ema), ema_ramp=config.ema_ramp, init_from=config.init_from or TEACHER
            )
        }
        teacher = None if pretrained else config.source
        frozen = {"teacher": NetworkSpec(pretrained or build, trainable=False, init_from=teacher)}
        # Adapters start as the teacher by changing nothing.
        fake = TEACHER if config.lora is None else None
        # A network or average that is named is the student's; what follows it has its own names there.
        run = config.init_from and source_parts(config.init_from, "student")[0]
        if self.views.joint:
            critic = NetworkSpec(self._critic, init_from=fake, init_part=fake and FAKE, clip_parts=(FAKE, HEADS))
            if run and config.init_heads:
                critic = replace(critic, init_from=run, init_part=None)
            elif run:
                critic = replace(critic, init_from=f"{run}#{FAKE}", init_part=FAKE)
            return found | {"critic": critic} | frozen
        found |= {FAKE: NetworkSpec(self._fake, init_from=run or fake)} | frozen
        if self.judged:
            found["discriminator"] = NetworkSpec(self._heads, init_from=run if config.init_heads else None)
        return found

    def _fake(self) -> nn.Module:
        lora = self.config.lora
        return self.parts.build() if lora is None else self.parts.adapters(lora.rank, lora.alpha, lora.layers)

    def _critic(self) -> JointCritic:
        return JointCritic(self._fake(), self._heads(), self.levels, self.config.backbone == "fake")

    def _heads(self) -> UnetHeads:
        maps = [self.parts.maps[level] for level in self.levels]
        return UnetHeads([each.channels for each in maps], [each.side for each in maps])

    def updates(self) -> Sequence[Update]:
        """The critic first, so that a fresh discriminator is not believed at once."""
        repeats = self.config.critic_updates
        student = Update("student", trains="student", coupled=self.weighted)
        # The memory of calibration cannot be put together from micro-batches.
        follows = self.weighted and self.config.ratio.recalibration is not None
        if self.views.joint:
            return [Update("critic", trains="critic", repeats=repeats, coupled=follows), student]
        fake = Update("fake_score", trains=FAKE, repeats=repeats)
        if not self.judged:
            return [fake, student]
        return [fake, Update("discriminator", trains="discriminator", repeats=repeats, coupled=follows), student]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of samples."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over samples of the loss of the network that is trained."""
        if update.trains == "student":
            return self._student_loss(nets, batch, context)
        labels, valid = self.parts.labels(batch), batch["valid"]
        fake = student_samples(self.config, self.parts, self.critic_times, nets, batch, context)
        if update.trains == FAKE:
            return fake_score_loss(self.views, nets, fake, labels, valid)
        real = real_samples(self.critic_times, batch, context, fake, self.config.time.real == "shared")
        weight = self.config.r1.weight
        small = context.streams.normal("r1", batch["sample_id"], self.parts.shape) if weight else None
        trial = Trial(fake, real, labels, valid, small, self.weights, context)
        return (joint_loss if self.views.joint else discriminator_loss)(self.views, nets, trial)

    def _student_loss(self, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Distribution matching with weights h, and lambda_G times the adversarial loss."""
        x = training_samples(self.config, self.parts, nets["student"], batch, context)
        drawn = draw_noised(x, self.matching_times, context, batch["sample_id"], "fake")
        return self.matching(nets, drawn, self.parts.labels(batch), batch["valid"], context)

    def matching(self, nets: Networks, drawn: Noised, labels: Tensor | None, valid: Tensor, context: Context) -> Loss:
        """The student's loss on noised samples of it, summed over valid rows."""
        config = self.config
        found_by = self.views.estimates(nets, drawn.x_t, drawn.t, labels)
        logits = found_by.logits
        h, state, metrics = None, None, {}
        if self.weighted:
            assert logits is not None
            found = self.weights(logits, drawn.t, valid, context.state, context.collectives)
            h, state, metrics = found.h, found.state, dict(found.metrics)
        losses = distribution_matching(drawn.x, found_by.teacher, found_by.fake, h)
        metrics["matching"] = Mean.of(losses.detach(), valid)
        if config.gan_weight and logits is not None:
            adversarial = gan_generator(logits)
            metrics["gan"] = Mean.of(adversarial.detach(), valid)
            losses = losses + config.gan_weight * adversarial
        return Loss(sum_of_valid(losses, valid), metrics, state)

    def state(self) -> Mapping[str, Tensor]:
        """Mean ratios of the bins of times, where samples have weights."""
        return self.weights.first() if self.weighted else {}

    def sampler(self, nets: Networks) -> StudentSampler:
        """As many calls of the student as it has steps."""
        student = nets["student"]
        assert isinstance(student, nn.Module)
        return StudentSampler(student, self.parts, tuple(Steps.of(self.config, self.parts).levels))

    def companion(self, nets: Networks) -> tuple[str, TeacherSampler]:
        """The teacher, to be seen beside the student from the same noise; who draws, in words, and how."""
        teacher, config = nets["teacher"], self.config
        assert isinstance(teacher, nn.Module)
        drawn = TeacherSampler(teacher, self.parts, self.teacher_sampling, config.guidance)
        return f"teacher ({drawn.in_words})", drawn

    @property
    def teacher_sampling(self) -> EdmSamplingConfig:
        """How the teacher draws: as it does by itself, or by Heun's method over the range of noise."""
        config, grid = self.config, self.matching_times
        told: dict[str, Any] = {} if config.teacher_steps is None else {"steps": config.teacher_steps}
        own = config.teacher_sampling
        if own is None:
            own, told = EdmSamplingConfig(), {"sigma_min": grid.sigma_min, "sigma_max": grid.sigma_max, **told}
        return own.model_copy(update=told)

    def flops(self, batch: Batch) -> int:
        """Of one step on the samples of `batch`, two for each multiply-add; see `costs`."""
        return round(2 * step_multiply_adds(self.views, self._head_multiply_adds) * len(batch["sample"]))

    @cached_property
    def _head_multiply_adds(self) -> int:
        if not self.judged:
            return 0
        with torch.device("meta"):
            return self._heads().multiply_adds()
