"""The case between modes: densities, the estimator's gradient, what counts as reached."""

from __future__ import annotations

import pytest
import torch

from evaluation.benchmarks import f_distill_modes as case
from evaluation.benchmarks.f_distill_modes import TEACHER, Gaussians, Plan
from generative.methods.f_distill.divergences import DIVERGENCES

ONE = Gaussians(torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.25]).double(), torch.ones(1, dtype=torch.float64))


def test_density_and_score_of_one_gaussian() -> None:
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.linspace(0, 2, 5, dtype=torch.float64)
    scale = (0.25 + t**2).sqrt()
    wanted = torch.distributions.Normal(ONE.means[0], scale[:, None]).log_prob(x).sum(1)
    torch.testing.assert_close(ONE.log_density(x, t), wanted)
    torch.testing.assert_close(ONE.score(x, t), (ONE.means[0] - x) / scale[:, None] ** 2)


@pytest.mark.parametrize("name", ["rkl", "kl", "js"])
def test_the_divergence_is_nothing_between_equals(name: str) -> None:
    p = case.teacher()
    # Components of equal weight are drawn in turn, so that the teacher is its own student with equal weights only.
    assert abs(case.divergence(DIVERGENCES[name], p, 20_000, 0)) < 0.1
    assert case.divergence(DIVERGENCES[name], ONE, 20_000, 0) > 0.3


def test_what_is_reached() -> None:
    heavy = Gaussians(TEACHER.means[-2:], torch.full((2,), 0.01).double(), torch.full((2,), 0.5).double())
    assert case.reached(heavy, 1000, 0) == (2, 1.0)
    nowhere = Gaussians(torch.zeros(1, 2).double(), torch.full((1,), 0.01).double(), torch.ones(1).double())
    assert case.reached(nowhere, 1000, 0) == (0, 0.0)


def test_forward_kl_covers_what_reverse_kl_leaves_out() -> None:
    """One round Gaussian: forward KL spreads over all modes (moment matching), reverse KL stays smaller."""
    plan = Plan(steps=150, batch=256, components=1, lr=0.1)
    wide, narrow = (case.train(DIVERGENCES[name], plan, 0) for name in ("kl", "rkl"))
    p = case.teacher()
    mean = (p.weights[:, None] * p.means).sum(0)
    variance = ((p.means - mean).square().sum(1) * p.weights).sum() / 2 + TEACHER.std**2
    # Forward KL at any noise is least at the teacher's moments.
    torch.testing.assert_close(wide.means[0], mean, rtol=0, atol=0.35)
    assert float(wide.variances) == pytest.approx(float(variance), rel=0.25)
    assert float(narrow.variances) < 0.9 * float(wide.variances)


def test_figures() -> None:
    found = case.figures(Plan(steps=3, batch=32, seeds=(0, 1), points=200))
    assert found["mixture_modes_gained"]["goal"] == ">= 1"
    assert found["mixture_own_best"]["value"] in range(4)
    assert found["mixture_kl_of_rkl"]["n"] == 2
    assert len(found["mixture_modes_kl"]["values"]) == 2
    assert len(found) == 2 + 2 * len(case.TRAINED) + 9
