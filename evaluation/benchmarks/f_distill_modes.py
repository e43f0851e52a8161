"""f-distill between modes: a student of three Gaussians in the plane, a teacher of six of unequal weight.

The student cannot be the teacher, so that each divergence has to leave something out, and theory says what: reverse KL
keeps to the heavy modes, forward KL covers the light ones too at the price of points between them. Both densities, and
so scores and density ratio, are known at every noise; only samples are drawn, and the step is the method's estimator
(weights h with mean 1, times from 0.3 to 3 in the logarithm, weighted by their square).

What it shows is the order of modes reached and points near modes. It does not show every divergence to be least for the
students trained on it: reverse KL is, but the noise of forward KL's weights costs more than js and kl differ by. It
says nothing about learned ratios and scores, which `bench f_distill_exact` and the digits do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.timing import one_thread
from evaluation.estimate import Estimate, mean_estimate
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence
from generative.methods.f_distill.ring2d import Ring

TEACHER = Ring(modes=6, radius=4.0, std=0.5)
TRAINED = ("rkl", "sf", "js", "sh", "kl", "jf")
COMPARED = ("rkl", "js", "kl")
LARGEST_LOG_RATIO = math.log(1e3)
TIMES = (0.3, 3.0)


@dataclass(frozen=True)
class Plan:
    """How students are trained and looked at.

    Args:
        steps: of Adam, at a rate that falls to 0 as a cosine.
        batch: samples of a step.
        lr: its first rate.
        components: of the student, of equal weight.
        seeds: of first weights and samples.
        points: that are looked at.
    """

    steps: int = 600
    batch: int = 512
    lr: float = 0.03
    components: int = 3
    seeds: Sequence[int] = (0, 1, 2)
    points: int = 20_000


@dataclass(frozen=True)
class Gaussians:
    """A mixture of round Gaussians.

    Args:
        means: float64[K, 2].
        variances: float64[K].
        weights: float64[K], which add up to 1.
    """

    means: Tensor
    variances: Tensor
    weights: Tensor

    def log_density(self, x: Tensor, t: Tensor) -> Tensor:
        """Of x[B, 2] under the mixture with noise of t[B] added, [B]."""
        variances = self.variances + t[:, None].square()
        squares = (x[:, None] - self.means).square().sum(2)
        return (self.weights.log() - (2 * math.pi * variances).log() - squares / (2 * variances)).logsumexp(1)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """Gradient of `log_density` by x, [B, 2]."""
        x = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(self.log_density(x, t).sum(), x)
        return found

    def sample(self, which: Tensor, noise: Tensor) -> Tensor:
        """Points of the components int64[B] from N(0, 1) [B, 2]."""
        return self.means[which] + self.variances.sqrt()[which][:, None] * noise

    def fixed(self) -> Gaussians:
        """Without gradient."""
        return Gaussians(self.means.detach(), self.variances.detach(), self.weights)


def teacher() -> Gaussians:
    """`TEACHER` as a mixture."""
    variances = torch.full((TEACHER.modes,), TEACHER.std**2, dtype=torch.float64)
    return Gaussians(TEACHER.means, variances, TEACHER.weights)


def train(f: Divergence, plan: Plan, seed: int) -> Gaussians:
    """A student by the estimator -E[h(r) (score_p - score_q) dx] with the exact ratio r."""
    g, k = torch.Generator().manual_seed(seed), plan.components
    means = _normal(g, k).requires_grad_()
    log_std = torch.full((k,), math.log(2.0), dtype=torch.float64).requires_grad_()
    weights = torch.full((k,), 1 / k, dtype=torch.float64)
    optimizer = torch.optim.Adam([means, log_std], plan.lr, betas=(0.5, 0.99))
    which, p = torch.arange(plan.batch) % k, teacher()
    for step in range(plan.steps):
        optimizer.param_groups[0]["lr"] = plan.lr * 0.5 * (1 + math.cos(math.pi * step / plan.steps))
        student = Gaussians(means, (2 * log_std).exp(), weights)
        t = _times(g, plan.batch)
        x_t = student.sample(which, _normal(g, plan.batch)) + t[:, None] * _normal(g, plan.batch)
        q, at = student.fixed(), x_t.detach()
        log_ratio = (p.log_density(at, t) - q.log_density(at, t)).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        h = f.h_of_log(log_ratio)
        away = (h / h.mean() * t.square())[:, None] * (q.score(at, t) - p.score(at, t))
        optimizer.zero_grad()
        torch.autograd.backward((away * x_t).sum(1).mean())
        optimizer.step()
    return Gaussians(means, (2 * log_std).exp(), weights).fixed()


def divergence(f: Divergence, student: Gaussians, points: int, seed: int) -> float:
    """D_f(p_t || q_t), mean over times weighted by t^2, which is what `train` descends.

    By samples of (p + q) / 2, over which f(r) 2 / (1 + r) has a small variance.
    """
    g, p, half = torch.Generator().manual_seed(seed), teacher(), points // 2
    t = _times(g, 2 * half)
    ours = student.sample(torch.arange(half) % len(student.means), _normal(g, half))
    x_t = torch.cat([TEACHER.sample(half, g).double(), ours]) + t[:, None] * _normal(g, 2 * half)
    log_ratio = p.log_density(x_t, t) - student.log_density(x_t, t)
    # f(r) 2 / (1 + r); r itself may overflow.
    bounded = log_ratio.clamp(-300, 300)
    values, weights = f.f_of_log(bounded) * 2 * torch.sigmoid(-bounded), t.square()
    return float((weights * values).sum() / weights.sum())


def reached(student: Gaussians, points: int, seed: int) -> tuple[int, float]:
    """Modes with a quarter of their points or more within three standard deviations; share of points that are there."""
    g = torch.Generator().manual_seed(seed)
    x = student.sample(torch.arange(points) % len(student.means), _normal(g, points))
    nearest, which = torch.cdist(x, TEACHER.means).min(1)
    good = nearest <= 3 * TEACHER.std
    shares = torch.bincount(which[good], minlength=TEACHER.modes) / points
    return int((shares >= TEACHER.weights / 4).sum()), float(good.double().mean())


def figures(plan: Plan = Plan()) -> dict[str, Figure]:
    """Modes reached and points near one, by f; forward KL against reverse KL; whether each f is best at its own."""
    with one_thread():
        students = {name: [train(DIVERGENCES[name], plan, seed) for seed in plan.seeds] for name in TRAINED}
    note = (
        f"{plan.components} Gaussians against 6 of weights 1 : ... : 6, exact scores and ratio, {plan.steps} steps of "
    )
    note += f"{plan.batch} points; mean over seeds {', '.join(map(str, plan.seeds))}"
    found: dict[str, Figure] = {}
    modes: dict[str, list[float]] = {}
    for name, several in students.items():
        pairs = [reached(one, plan.points, seed) for one, seed in zip(several, plan.seeds, strict=True)]
        modes[name], near = [float(count) for count, _ in pairs], [share for _, share in pairs]
        say(f"modes {name}: {modes[name]}, near a mode {', '.join(f'{share:.2f}' for share in near)}")
        told = "modes of 6 with a quarter of their points or more"
        found[f"mixture_modes_{name}"] = figure(mean_estimate(modes[name], "", f"{told}; {note}"), values=modes[name])
        told = "share of points within three standard deviations of a mode"
        found[f"mixture_near_{name}"] = figure(mean_estimate(near, "", f"{told}; {note}"), values=near)
    more = [a - b for a, b in zip(modes["kl"], modes["rkl"], strict=True)]
    told = f"modes that forward KL reaches beyond reverse KL, of the same seed; {note}"
    best, table = 0, {}
    for judged in COMPARED:
        row = {name: [_divergence(judged, one, plan) for one in students[name]] for name in COMPARED}
        means = {name: sum(values) / len(values) for name, values in row.items()}
        say(f"D_{judged}: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
        best += min(means, key=lambda name: means[name]) == judged
        for name, values in row.items():
            told_of = f"D_{judged} of students trained on {name}, mean over times weighted by their square; {note}"
            table[f"mixture_{judged}_of_{name}"] = figure(mean_estimate(values, "", told_of), values=values)
    own = f"divergences of {', '.join(COMPARED)} that are least for the students trained on them; {note}"
    return {
        "mixture_modes_gained": figure(mean_estimate(more, "", told), ">= 1", values=more),
        "mixture_own_best": figure(Estimate(best, None, len(COMPARED), "", own)),
        **found,
        **table,
    }


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    return figures(Plan(steps=20, seeds=(0,), points=2000) if quick else Plan())


def _divergence(judged: str, student: Gaussians, plan: Plan) -> float:
    return divergence(DIVERGENCES[judged], student, plan.points, 100)


def _normal(g: torch.Generator, count: int) -> Tensor:
    return torch.randn(count, 2, generator=g, dtype=torch.float64)


def _times(g: torch.Generator, count: int) -> Tensor:
    low, high = TIMES
    return low * (high / low) ** torch.rand(count, generator=g, dtype=torch.float64)
