"""The ring: its closed forms, and that a short training goes towards it."""

from __future__ import annotations

import torch

from generative.methods.f_distill.divergences import DIVERGENCES
from generative.methods.f_distill.ring2d import Plan, Ring, RingStudent, look

RING = Ring()


def test_the_teachers_estimate_is_tweedies() -> None:
    """x + t^2 d log p_t / dx, p_t by the sum over modes."""
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    x.requires_grad_()
    t = torch.tensor([0.1, 0.3, 1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
    variance = t[:, None] ** 2 + RING.std**2
    away = (x[:, None] - RING.means).square().sum(2)
    log_p = (RING.weights.log() - away / (2 * variance) - variance.log()).logsumexp(1)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(RING.denoised(x.detach(), t), x.detach() + t[:, None] ** 2 * score)


def test_points_of_the_teacher_itself() -> None:
    points = RING.sample(5000, torch.Generator().manual_seed(0))
    found = look(points, RING, DIVERGENCES["js"])
    assert found.modes == 8
    assert found.high_quality > 0.98
    assert 0 <= found.divergence < 2e-3
    assert abs(float(points.std()) - RING.scale) < 0.2


def test_lost_modes_are_counted() -> None:
    points = RING.means[4:].repeat_interleave(100, 0)
    found = look(points, RING, DIVERGENCES["kl"])
    assert (found.modes, found.high_quality) == (4, 1.0)
    assert found.divergence == found.forward_kl > 0.3


def test_a_short_training_spreads_the_student() -> None:
    student = RingStudent(RING, DIVERGENCES["js"], Plan(steps=60, critic_updates=2, batch=64, width=32), seed=0)
    before = float(student.draw(2000).detach().norm(dim=1).mean())
    student.train()
    after = float(student.draw(2000).detach().norm(dim=1).mean())
    assert abs(after - RING.radius) < abs(before - RING.radius)
