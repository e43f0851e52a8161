"""The losses of what follows the student: the fake score on its samples, and the discriminator against real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.method import Batch, Context, Loss, Mean, Networks
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.f_distill.denoiser import DenoiserParts
from generative.methods.f_distill.losses import (
    approximate_r1,
    denoising,
    edm_weight,
    gan_discriminator,
    perturbed_input,
)
from generative.methods.f_distill.ratio import auc_by_time
from generative.methods.f_distill.sampler import one_step
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
    ids = batch["sample_id"]
    x = one_step(nets["student"], context.streams, ids, parts, config.student_sigma, parts.labels(batch))
    return draw_noised(x, grid, context, ids, "fake")


def fake_score_loss(
    config: FDistillConfig, nets: Networks, drawn: Noised, labels: Tensor | None, valid: Tensor
) -> Loss:
    """Denoising score matching on the student's samples, summed over valid rows."""
    prediction = nets["fake"](drawn.x_t, drawn.t, labels)
    weight = edm_weight(drawn.t, config.sigma_data) if config.fake_weight == "edm" else None
    losses = denoising(prediction, drawn.x, drawn.noise, weight=weight)
    return Loss(sum_of_valid(losses, valid))


def discriminator_loss(
    config: FDistillConfig,
    levels: list[int],
    edges: Tensor,
    nets: Networks,
    fake: Noised,
    real: Noised,
    labels: Tensor | None,
    valid: Tensor,
    small: Tensor | None,
) -> Loss:
    """softplus(l_fake) + softplus(-l_real) + gamma R1, summed over valid rows; only the heads take a gradient.

    Args:
        config: of the method.
        levels: of the teacher's encoder.
        edges: inner borders of the bins of times, for the area under the curve.
        nets: teacher and discriminator.
        fake: the student's samples.
        real: real samples.
        labels: of both.
        valid: bool[B].
        small: N(0, 1) of the samples' shape, for R1; None without it.
    """
    shown = [(fake.x_t, fake.t), (real.x_t, real.t)]
    if small is not None:
        of_clean = config.r1.form == "released"
        shown.append((perturbed_input(real.x, real.x_t, small, config.r1.std, of_clean), real.t))
    logits = teacher_logits(nets, levels, shown, labels)
    losses = gan_discriminator(logits[1], logits[0])
    metrics = {
        "gan": Mean.of(losses.detach(), valid),
        "real": Mean.of(logits[1].detach().mean(1), valid),
        "fake": Mean.of(logits[0].detach().mean(1), valid),
        "auc_by_time": auc_by_time(logits[1], logits[0], real.t, fake.t, edges, valid),
    }
    if small is not None:
        penalty = approximate_r1(logits[1], logits[2])
        metrics["r1"] = Mean.of(penalty.detach(), valid)
        losses = losses + config.r1.weight * penalty
    return Loss(sum_of_valid(losses, valid), metrics)


def teacher_logits(
    nets: Networks, levels: list[int], shown: list[tuple[Tensor, Tensor]], labels: Tensor | None
) -> tuple[Tensor, ...]:
    """Logits [B, K] of several batches of (x_t, t), in one pass of the teacher's encoder and one of the heads."""
    x_t, t = (torch.cat(parts) for parts in zip(*shown, strict=True))
    told = None if labels is None else labels.repeat(len(shown), 1)
    with torch.no_grad():
        features = nets["teacher"](x_t, t, told, features=levels, encoder_only=True)
    logits: Tensor = nets["discriminator"](features)
    return logits.chunk(len(shown))


def sum_of_valid(losses: Tensor, valid: Tensor) -> Tensor:
    """Sum over the rows that count, whatever the others hold."""
    return torch.where(valid, losses, 0.0).sum()
