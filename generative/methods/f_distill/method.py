"""f-distill as the trainer sees it: a student, the fake score that follows it, a frozen teacher, a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.method import Batch, Context, Loss, Mean, Networks, NetworkSpec, Update
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.critic import (
    Noised,
    discriminator_loss,
    draw_noised,
    fake_score_loss,
    student_samples,
    sum_of_valid,
)
from generative.methods.f_distill.denoiser import DenoiserParts, without_class
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence, alpha_divergence
from generative.methods.f_distill.losses import distribution_matching, gan_generator, guided
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.sampler import OneStepSampler, one_step
from generative.methods.f_distill.teacher_sampler import TeacherSampler
from generative.methods.f_distill.times import TimeGrid, noised
from generative.nets.feature_heads import UnetHeads

TEACHER = "network:teacher"

TEACHER_STEPS = 18
"""Of Heun's method, where the teacher does not tell its own."""


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

    def grid(self, first: int, last: int) -> TimeGrid:
        """Times of which those with indices first .. last are drawn."""
        time = self.config.time
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

    def networks(self) -> Mapping[str, NetworkSpec]:
        """Student and fake score start as the teacher."""
        config, build, teacher = self.config, self.parts.build, self.config.source
        found = {
            "student": NetworkSpec(
                build, ema=tuple(config.ema), ema_ramp=config.ema_ramp, init_from=config.init_from or TEACHER
            ),
            "fake": NetworkSpec(build, init_from=config.init_from or TEACHER),
            "teacher": NetworkSpec(build, trainable=False, init_from=teacher),
        }
        if self.judged:
            found["discriminator"] = NetworkSpec(self._heads, init_from=config.init_from)
        return found

    def _heads(self) -> UnetHeads:
        maps = [self.parts.maps[level] for level in self.levels]
        return UnetHeads([each.channels for each in maps], [each.side for each in maps])

    def updates(self) -> Sequence[Update]:
        """The critic first, so that a fresh discriminator is not believed at once."""
        repeats = self.config.critic_updates
        student = Update("student", trains="student", coupled=self.weighted)
        fake = Update("fake_score", trains="fake", repeats=repeats)
        if not self.judged:
            return [fake, student]
        return [fake, Update("discriminator", trains="discriminator", repeats=repeats), student]

    def divisor(self, update: Update, batch: Batch, context: Context) -> Tensor:
        """Number of samples."""
        return batch["valid"].sum()

    def loss(self, update: Update, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Sum over samples of the loss of the network that is trained."""
        if update.trains == "student":
            return self._student_loss(nets, batch, context)
        labels, valid, ids = self.parts.labels(batch), batch["valid"], batch["sample_id"]
        fake = student_samples(self.config, self.parts, self.critic_times, nets, batch, context)
        if update.trains == "fake":
            return fake_score_loss(self.config, nets, fake, labels, valid)
        x = batch["sample"].float()
        if self.config.time.real == "shared":
            real = Noised(x, fake.noise, fake.t, noised(x, fake.noise, fake.t))
        else:
            real = draw_noised(x, self.critic_times, context, ids, "real")
        small = context.streams.normal("r1", ids, self.parts.shape) if self.config.r1.weight else None
        edges = self.weights.edges
        return discriminator_loss(self.config, self.levels, edges, nets, fake, real, labels, valid, small)

    def _student_loss(self, nets: Networks, batch: Batch, context: Context) -> Loss:
        """Distribution matching with weights h, and lambda_G times the adversarial loss."""
        ids, labels = batch["sample_id"], self.parts.labels(batch)
        x = one_step(nets["student"], context.streams, ids, self.parts, self.config.student_sigma, labels)
        drawn = draw_noised(x, self.matching_times, context, ids, "fake")
        return self.matching(nets, drawn, labels, batch["valid"], context)

    def matching(self, nets: Networks, drawn: Noised, labels: Tensor | None, valid: Tensor, context: Context) -> Loss:
        """The student's loss on noised samples of it, summed over valid rows."""
        config = self.config
        with torch.no_grad():
            fake = nets["fake"](drawn.x_t.detach(), drawn.t, labels)
        teacher, logits = self._teacher(nets, drawn, labels)
        h, state, metrics = None, None, {}
        if self.weighted:
            assert logits is not None
            found = self.weights(logits, drawn.t, valid, context.state, context.collectives)
            h, state, metrics = found.h, found.state, dict(found.metrics)
        losses = distribution_matching(drawn.x, teacher, fake, h)
        metrics["matching"] = Mean.of(losses.detach(), valid)
        if config.gan_weight and logits is not None:
            adversarial = gan_generator(logits)
            metrics["gan"] = Mean.of(adversarial.detach(), valid)
            losses = losses + config.gan_weight * adversarial
        return Loss(sum_of_valid(losses, valid), metrics, state)

    def _teacher(self, nets: Networks, drawn: Noised, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The teacher's estimate without gradient, guided, and the logits of what its encoder saw on the way.

        The adversarial loss goes back through heads and encoder into the student's samples, so that these activations
        are kept; those of the decoder are not.
        """
        through = torch.is_grad_enabled() and self.config.gan_weight > 0
        with torch.set_grad_enabled(through):
            if self.judged:
                estimate, features = nets["teacher"](
                    drawn.x_t, drawn.t, labels, features=self.levels, decoder_gradient=False
                )
                logits = nets["discriminator"](features)
            else:
                estimate, logits = nets["teacher"](drawn.x_t, drawn.t, labels), None
        if self.config.guidance != 1.0 and labels is not None:
            unguided = without_class(nets["teacher"], drawn.x_t.detach(), drawn.t)
            estimate = guided(estimate, unguided, self.config.guidance)
        return estimate.detach(), logits

    def state(self) -> Mapping[str, Tensor]:
        """Mean ratios of the bins of times, where samples have weights."""
        return self.weights.first() if self.weighted else {}

    def sampler(self, nets: Networks) -> OneStepSampler:
        """One call of the student."""
        student = nets["student"]
        assert isinstance(student, nn.Module)
        return OneStepSampler(student, self.parts, self.config.student_sigma)

    def companion(self, nets: Networks) -> tuple[str, TeacherSampler]:
        """The teacher, to be seen beside the student from the same noise; who draws, in words, and how."""
        teacher, config = nets["teacher"], self.config
        assert isinstance(teacher, nn.Module)
        grid = self.matching_times
        drawn = TeacherSampler(teacher, self.parts, grid, config.teacher_steps or TEACHER_STEPS, config.guidance)
        return f"teacher ({drawn.calls} calls)", drawn

    def flops(self, batch: Batch) -> int:
        """Of one step, two for each multiply-add: backward is twice the forward, once where only inputs take gradients.

        Critic: student 1, fake score 3; student 1, encoder 2 (3 with R1). Student: 3, fake score 1, teacher 1, once
        more with guidance, and back through its encoder.
        """
        net, encoder, config = self.parts.multiply_adds, self.parts.encoder_multiply_adds, self.config
        heads = self._head_multiply_adds if self.judged else 0
        passes = 2 + (config.r1.weight > 0)
        through = config.gan_weight > 0
        guidance = config.guidance != 1.0 and self.parts.classes > 0
        critic = 4 * net + ((net + passes * (encoder + 3 * heads)) if self.judged else 0)
        student = (5 + guidance) * net + heads + through * (encoder + heads)
        return 2 * (config.critic_updates * critic + student) * len(batch["sample"])

    @cached_property
    def _head_multiply_adds(self) -> int:
        with torch.device("meta"):
            return self._heads().multiply_adds()
