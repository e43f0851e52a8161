"""f-distill where the answer is known: a Gaussian student of a mixture on the line, and points of a ring of modes.

One dimension: the gradient that the method descends is held against differentiation of the divergence, as an integral
and from samples. At noise 0.5 the minimum (mu, s) of each divergence comes from quadrature; stochastic descent from
samples has to find it with the exact density ratio, and with one that a discriminator learns. The scores are exact.

The ring is a smoke test of the whole step: a small smooth generator cannot cut between modes, so that a third of its
points lies between them, and differences between divergences are within those between seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.estimate import Estimate, mean_estimate
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence
from generative.methods.f_distill.exact1d import (
    TEACHER,
    Descent,
    descend,
    divergence,
    exact_loss,
    optimum,
    score_gradient,
)
from generative.methods.f_distill.learned1d import Learning, learned_loss
from generative.methods.f_distill.ring2d import Plan, Ring, RingStudent, look

SIGMA = 0.5
EXACT = ("rkl", "sf", "js", "sh", "kl", "jf")
LEARNED = ("js", "sh", "rkl", "sf")
"""Forward KL and Jeffreys weigh by the ratio itself, whose errors in the tails are too large to promise anything."""

STUDENTS = ((0.0, 2.0), (-0.5, 1.7), (0.5, 2.5))
"""(mu, s) that gradients are compared at, by each of `NOISES`."""

NOISES = (0.3, 0.5, 1.0, 2.0, 4.0)
RING = ("rkl", "js", "kl")
TOLD = {
    "modes": "modes of 8 (weights 1 : 2 : ... : 8) with a quarter of their points or more",
    "high_quality": "share of points within three standard deviations of the nearest mode",
    "divergence": "D_f of the shares of modes, teacher against student, f as trained",
    "forward_kl": "KL(teacher || student) of the shares of modes",
}


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        exact: descent with the exact ratio.
        learned: descent with a learned one.
        learning: how the discriminator follows.
        seeds: descents of each divergence; the figures are of the worst.
        ring: training of a student of the ring.
        ring_seeds: such trainings of each divergence.
        points: drawn from each.
        estimates: of each gradient from samples.
    """

    exact: Descent
    learned: Descent
    learning: Learning
    seeds: Sequence[int]
    ring: Plan
    ring_seeds: Sequence[int]
    points: int = 5000
    estimates: int = 100


FULL = Settings(Descent(), Descent(1200), Learning(), (0, 1), Plan(), (0, 1))
QUICK = Settings(
    Descent(100, 256),
    Descent(30, 128),
    Learning(16, 1, 20, 128),
    (0,),
    Plan(20, 1, 32, 16),
    (0,),
    points=200,
    estimates=10,
)


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else FULL
    return {**gradients(settings), **exact(settings), **learned(settings), **ring(settings)}


def gradients(settings: Settings) -> dict[str, Figure]:
    """`exact1d_gradient_error` of the theorem's integral, and `exact1d_estimator_z` of the method's loss on samples."""
    errors, deviations = [], []
    for name in EXACT:
        f, generator = DIVERGENCES[name], torch.Generator().manual_seed(0)
        for student in STUDENTS:
            theta = torch.tensor(student, dtype=torch.float64, requires_grad=True)
            for sigma in NOISES:
                (wanted,) = torch.autograd.grad(divergence(f, TEACHER, theta, sigma), theta)
                errors.append(float((score_gradient(f, TEACHER, theta, sigma) - wanted).abs().max()))
                if sigma == SIGMA:
                    deviations.append(_deviation(f, theta, wanted, settings, generator))
    say(f"exact1d gradients: within {max(errors):.1e}; from samples within {max(deviations):.2g} standard errors")
    note = f"{', '.join(EXACT)}; students {', '.join(map(str, STUDENTS))}"
    told = f"-E[h (score_p - score_q) dx] by quadrature against differentiation of D_f, largest difference; {note}; "
    told += f"noise {', '.join(map(str, NOISES))}"
    estimated = f"gradient of the method's loss with the exact ratio, mean of {settings.estimates} estimates of "
    estimated += f"{settings.exact.batch:,} samples, against that of D_f, in standard errors, the largest; {note}; "
    estimated += f"noise {SIGMA}"
    return {
        "exact1d_gradient_error": figure(Estimate(max(errors), None, len(errors), "", told), "<= 1e-6"),
        "exact1d_estimator_z": figure(Estimate(max(deviations), None, 2 * len(deviations), "", estimated), "<= 4"),
    }


def _deviation(f: Divergence, theta: Tensor, wanted: Tensor, settings: Settings, generator: torch.Generator) -> float:
    """How far the mean of estimates from samples is from the gradient, in standard errors; the worse of mu and s."""
    loss = exact_loss(f, TEACHER, SIGMA, settings.exact.batch, generator)
    found = torch.stack([torch.autograd.grad(loss(theta), theta)[0] for _ in range(settings.estimates)]) / SIGMA**2
    error = found.std(0) / settings.estimates**0.5
    return float(((found.mean(0) - wanted).abs() / error).max())


def exact(settings: Settings) -> dict[str, Figure]:
    """`exact1d_max_error`: largest distance of mu or s from the minimum, over six divergences and all seeds."""

    def find(name: str, generator: torch.Generator) -> Tensor:
        plan = settings.exact
        return descend(plan, exact_loss(DIVERGENCES[name], TEACHER, SIGMA, plan.batch, generator))

    note = f"exact ratio, {settings.exact.steps:,} steps of {settings.exact.batch:,} samples"
    return _errors("exact1d", EXACT, find, settings.seeds, "<= 0.03", note)


def learned(settings: Settings) -> dict[str, Figure]:
    """`learned1d_max_error`: the same with a learned ratio, for the divergences whose weights are tame."""

    def find(name: str, generator: torch.Generator) -> Tensor:
        plan, learning = settings.learned, settings.learning
        return descend(plan, learned_loss(DIVERGENCES[name], TEACHER, SIGMA, plan.batch, generator, learning))

    note = (
        f"ratio of a discriminator (2 hidden layers of {settings.learning.width}, {settings.learning.updates} updates "
    )
    note += f"for each of the student), {settings.learned.steps:,} steps of {settings.learned.batch:,} samples"
    return _errors("learned1d", LEARNED, find, settings.seeds, "<= 0.1", note)


def ring(settings: Settings) -> dict[str, Figure]:
    """Modes reached, points near a mode, and D_f of the shares of modes, for students of a ring of eight modes."""
    figures: dict[str, Figure] = {}
    teacher = Ring()
    for name in RING:
        values: dict[str, list[float]] = {}
        for seed in settings.ring_seeds:
            student = RingStudent(teacher, DIVERGENCES[name], settings.ring, seed)
            student.train()
            found = look(student.draw(settings.points), teacher, DIVERGENCES[name])
            for what in TOLD:
                values.setdefault(what, []).append(float(getattr(found, what)))
            say(f"ring {name}, seed {seed}: {found}")
        note = (
            f"teacher in closed form, all else learned, {settings.ring.steps:,} steps of {settings.ring.batch} points, "
        )
        note += f"{settings.points:,} points; mean over seeds {', '.join(map(str, settings.ring_seeds))}"
        for what, several in values.items():
            figures[f"ring_{what}_{name}"] = figure(mean_estimate(several, "", f"{TOLD[what]}; {note}"), values=several)
    return figures


def _errors(
    key: str,
    names: Sequence[str],
    find: Callable[[str, torch.Generator], Tensor],
    seeds: Sequence[int],
    goal: str,
    note: str,
) -> dict[str, Figure]:
    """The worst error with its goal, and the mean of each divergence."""
    figures: dict[str, Figure] = {}
    worst: list[float] = []
    for name in names:
        wanted, _ = optimum(DIVERGENCES[name], TEACHER, SIGMA)
        found = [find(name, torch.Generator().manual_seed(seed)) for seed in seeds]
        errors = [float((theta - wanted).abs().max()) for theta in found]
        say(f"{key} {name}: minimum {_pair(wanted)}, found {', '.join(map(_pair, found))}")
        worst.append(max(errors))
        told = f"largest distance of mu or s from ({_pair(wanted)}), mean over seeds; {note}"
        figures[f"{key}_error_{name}"] = figure(mean_estimate(errors, "", told), values=errors)
    protocol = f"largest distance of mu or s from the minimum by quadrature, over {', '.join(names)} and seeds "
    protocol += f"{', '.join(map(str, seeds))}; {note}"
    # A maximum over few runs has no standard error worth the name.
    highest = Estimate(max(worst), None, len(names) * len(seeds), "", protocol)
    return {f"{key}_max_error": figure(highest, goal)} | figures


def _pair(theta: Tensor) -> str:
    return f"{float(theta[0]):.4f} {float(theta[1]):.4f}"
