"""The exact benchmark of f-distill in its smallest form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evaluation.benchmarks import BENCHMARKS, f_distill_exact
from evaluation.benchmarks.f_distill_exact import EXACT, LEARNED, QUICK, RING
from generative.methods.f_distill.exact1d import Descent


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = f_distill_exact.gradients(QUICK)
    assert figures["exact1d_gradient_error"]["value"] < 1e-6
    assert figures["exact1d_gradient_error"]["n"] == len(EXACT) * 15
    assert figures["exact1d_estimator_z"]["value"] < 6  # of ten estimates each
    turned = f_distill_exact.score_gradient  # the sign of the whole, as a wrong step would have it
    monkeypatch.setattr(f_distill_exact, "score_gradient", lambda *given: -turned(*given))
    assert f_distill_exact.gradients(QUICK)["exact1d_gradient_error"]["value"] > 0.1


def test_figures() -> None:
    few = replace(QUICK, exact=Descent(20, 64), learned=Descent(6, 64))
    figures = f_distill_exact.exact(few) | f_distill_exact.learned(few)
    assert figures["exact1d_max_error"]["goal"] == "<= 0.03"
    assert figures["learned1d_max_error"]["goal"] == "<= 0.1"
    for key, names in (("exact1d", EXACT), ("learned1d", LEARNED)):
        errors = [figures[f"{key}_error_{name}"]["value"] for name in names]
        assert all(math.isfinite(error) for error in errors)
        assert figures[f"{key}_max_error"]["value"] == max(errors)  # one seed
        assert "minimum by quadrature" in figures[f"{key}_max_error"]["protocol"]


def test_figures_of_the_ring() -> None:
    figures = f_distill_exact.ring(QUICK)
    for name in RING:
        assert 0 <= figures[f"ring_modes_{name}"]["value"] <= 8
        assert 0 <= figures[f"ring_high_quality_{name}"]["value"] <= 1
        assert figures[f"ring_divergence_{name}"]["value"] >= 0
        assert figures[f"ring_forward_kl_{name}"]["value"] >= 0


def test_registered() -> None:
    assert BENCHMARKS["f_distill_exact"] == f_distill_exact.__name__
