"""The losses of what follows the student: the fake score on its samples, and the discriminator against real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.method import Batch, Context, Loss, Mean, Networks
from generative.methods.f_distill.backbone import Views
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import DenoiserParts
from generative.methods.f_distill.logits import auc_by_time
from generative.methods.f_distill.losses import (
    approximate_r1,
    denoising,
    edm_weight,
    gan_discriminator,
    perturbed_input,
)
from generative.methods.f_distill.ratio import RatioWeights
from generative.methods.f_distill.sampler import training_samples
from generative.methods.f_distill.times import TimeGrid, noised


@dataclass(frozen=True)
class Noised:
    """Samples of the student or real ones, before and after the noise.

    Args:
        x: [B, *shape].
        noise: N(0, 1) of the same shape.
        t: float64[B].
        x_t: x + t noise, with the gradient of x.
    """

    x: Tensor
    noise: Tensor
    t: Tensor
    x_t: Tensor


def draw_noised(x: Tensor, grid: TimeGrid, context: Context, ids: Tensor, whose: str) -> Noised:
    """x at random times of the grid; `whose` names the streams."""
    t = grid.draw(context.streams, ids, f"t.{whose}")
    noise = context.streams.normal(f"noise.{whose}", ids, x.shape[1:])
    return Noised(x, noise, t, noised(x, noise, t))


@torch.no_grad()
def student_samples(
    config: FDistillConfig, parts: DenoiserParts, grid: TimeGrid, nets: Networks, batch: Batch, context: Context
) -> Noised:
    """What the student draws for the classes of the batch, noised, without gradient."""
    x = training_samples(config, parts, nets["student"], batch, context)
    return draw_noised(x, grid, context, batch["sample_id"], "fake")


def real_samples(grid: TimeGrid, batch: Batch, context: Context, fake: Noised, shared: bool) -> Noised:
    """Those of the batch, at times and noise of their own, or at those of the student's samples."""
    x = batch["sample"].float()
    if shared:
        return Noised(x, fake.noise, fake.t, noised(x, fake.noise, fake.t))
    return draw_noised(x, grid, context, batch["sample_id"], "real")


def fake_score_loss(views: Views, nets: Networks, drawn: Noised, labels: Tensor | None, valid: Tensor) -> Loss:
    """Denoising score matching on the student's samples, summed over valid rows."""
    prediction = views.fake(nets)(drawn.x_t, drawn.t, labels)
    return Loss(sum_of_valid(score_losses(views.config, prediction, drawn), valid))


def score_losses(config: FDistillConfig, prediction: Tensor, drawn: Noised) -> Tensor:
    """Of each sample, [B]."""
    weight = {
        "edm": edm_weight(drawn.t, config.sigma_data),
        "eps": drawn.t.double() ** -2,  # mean (eps' - eps)^2
        "none": None,
    }[config.fake_weight]
    return denoising(prediction, drawn.x, drawn.noise, weight=weight)


@dataclass(frozen=True)
class Trial:
    """What the discriminator is to tell apart.

    Args:
        fake: the student's samples.
        real: real samples.
        labels: of both.
        valid: bool[B].
        small: N(0, 1) of the samples' shape, for R1; None without it.
        weights: bins of times, and what is remembered of calibration.
        context: of the update.
    """

    fake: Noised
    real: Noised
    labels: Tensor | None
    valid: Tensor
    small: Tensor | None
    weights: RatioWeights
    context: Context

    def remembered(self, logits: Sequence[Tensor]) -> dict[str, Tensor]:
        """The method's memory after logits in the order of `shown`."""
        return self.weights.follow(logits[:2], (self.fake.t, self.real.t), self.valid, self.context)

    def shown(self, config: FDistillConfig) -> list[tuple[Tensor, Tensor]]:
        """The student's samples, real ones, and real ones under small noise where R1 asks for them."""
        fake, real = self.fake, self.real
        found = [(fake.x_t, fake.t), (real.x_t, real.t)]
        if self.small is not None:
            of_clean = config.r1.form == "released"
            found.append((perturbed_input(real.x, real.x_t, self.small, config.r1.std, of_clean), real.t))
        return found


def discriminator_loss(views: Views, nets: Networks, trial: Trial) -> Loss:
    """softplus(l_fake) + softplus(-l_real) + gamma R1, summed over valid rows; only the heads take a gradient."""
    logits = views.logits(nets, trial.shown(views.config), trial.labels)
    losses, metrics = judged_losses(views.config, logits, trial)
    return Loss(sum_of_valid(losses, trial.valid), metrics, trial.remembered(logits))


def joint_loss(views: Views, nets: Networks, trial: Trial) -> Loss:
    """Fake score and discriminator on the same samples: `fake_score_loss` + joint_weight `discriminator_loss`."""
    prediction, logits = views.judged_scores(nets, trial.shown(views.config), trial.labels)
    score = score_losses(views.config, prediction, trial.fake)
    judged, metrics = judged_losses(views.config, logits, trial)
    metrics["fake_score"] = Mean.of(score.detach(), trial.valid)
    value = sum_of_valid(score + views.config.joint_weight * judged, trial.valid)
    return Loss(value, metrics, trial.remembered(logits))


def judged_losses(config: FDistillConfig, logits: Sequence[Tensor], trial: Trial) -> tuple[Tensor, dict[str, Mean]]:
    """Of each sample, [B], and what is told of them; logits [B, K] in the order of `Trial.shown`."""
    fake, real, valid = trial.fake, trial.real, trial.valid
    losses = gan_discriminator(logits[1], logits[0])
    metrics = {
        "gan": Mean.of(losses.detach(), valid),
        "real": Mean.of(logits[1].detach().mean(1), valid),
        "fake": Mean.of(logits[0].detach().mean(1), valid),
        "auc_by_time": auc_by_time(logits[1], logits[0], real.t, fake.t, trial.weights.edges, valid),
    }
    if trial.small is not None:
        penalty = approximate_r1(logits[1], logits[2])
        metrics["r1"] = Mean.of(penalty.detach(), valid)
        losses = losses + config.r1.weight * penalty
    return losses, metrics


def sum_of_valid(losses: Tensor, valid: Tensor) -> Tensor:
    """Sum over the rows that count, whatever the others hold."""
    return torch.where(valid, losses, 0.0).sum()
