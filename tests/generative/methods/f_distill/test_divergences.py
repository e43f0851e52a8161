"""Divergences: tables of the released code and of the paper, identities, and what makes them f-divergences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from generative.errors import ConfigError
from generative.methods.f_distill.divergences import DIVERGENCES, Divergence, alpha_divergence, divergence_of
from tests.generative.methods.f_distill.golden import arrays

RATIOS = st.floats(1e-4, 1e4)
EVERY = [*DIVERGENCES.values(), *(alpha_divergence(a) for a in (-1.0, 0.0, 1e-7, 0.3, 0.5, 1.0, 1.0 - 1e-7, 2.0))]
GIVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda r: r * r.log(),
    "js": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "pearson": lambda r: (r - 1) ** 2 / 2,
    "rkl": lambda r: -r.log(),
}
every = pytest.mark.parametrize("divergence", EVERY, ids=lambda d: d.name)
few = settings(max_examples=40)
"""Of each of sixteen divergences; a wrong one differs almost everywhere."""


def f_of(divergence: Divergence, r: float) -> float:
    return float(divergence.f(torch.tensor(r, dtype=torch.float64)))


def derivatives(divergence: Divergence, r: Tensor) -> tuple[Tensor, Tensor]:
    r = r.clone().requires_grad_()
    (first,) = torch.autograd.grad(divergence.f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r, allow_unused=True)
    return first.detach(), second


@pytest.mark.parametrize("name", ["rkl", "sf", "js", "sh", "kl", "jf", "neyman"])
def test_tables_of_the_released_code(name: str) -> None:
    golden = arrays("h_functions")
    r, divergence = golden["r"], DIVERGENCES[name]
    first, second = derivatives(divergence, r)

    def same(found: Tensor, wanted: Tensor) -> None:
        # Near r = 1 both f and its table have the rounding of terms of order 1.
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)

    same(divergence.f(r), golden[f"f_{name}"])
    same(first, golden[f"fp_{name}"])
    same(second, golden[f"fpp_{name}"])
    same(divergence.h(r), golden[f"h_theory_{name}"])
    same(divergence.h(r) * (4 if name == "sh" else 1), golden[f"h_fastgen_{name}"])


@every
def test_at_one(divergence: Divergence) -> None:
    assert f_of(divergence, 1.0) == pytest.approx(0, abs=1e-15)


@every
@few
@given(a=RATIOS, b=RATIOS, part=st.floats(0, 1))
def test_convex(divergence: Divergence, a: float, b: float, part: float) -> None:
    ends = [f_of(divergence, a), f_of(divergence, b)]
    middle = f_of(divergence, part * a + (1 - part) * b)
    assert middle <= part * ends[0] + (1 - part) * ends[1] + 1e-9 * (1 + max(map(abs, ends)) + a + b)


@every
@few
@given(r=RATIOS)
def test_the_weight_is_the_second_derivative(divergence: Divergence, r: float) -> None:
    ratio = torch.tensor([r], dtype=torch.float64)
    _, second = derivatives(divergence, ratio)
    torch.testing.assert_close(divergence.h(ratio), ratio**2 * second, rtol=1e-6, atol=1e-9)


@every
@few
@given(p=st.lists(st.floats(0.01, 1), min_size=3, max_size=3), q=st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_not_negative_and_zero_for_equal_densities(divergence: Divergence, p: list[float], q: list[float]) -> None:
    first, second = (torch.tensor(x, dtype=torch.float64) for x in (p, q))
    first, second = first / first.sum(), second / second.sum()
    assert float((second * divergence.f(first / second)).sum()) >= -1e-12
    assert float((second * divergence.f(second / second)).sum()) == pytest.approx(0, abs=1e-14)


@given(r=st.floats(0, float(np.finfo(np.float32).max), width=32))
def test_float32_over_the_full_range(r: float) -> None:
    narrow, exact = torch.tensor([r]), torch.tensor([r], dtype=torch.float64)
    for divergence in DIVERGENCES.values():
        found, wanted = divergence.h(narrow), divergence.h(exact)
        assert bool(found.isfinite().all()), divergence.name
        limit = torch.finfo(torch.float32).max
        # float32 below 1e-37 has fewer digits.
        torch.testing.assert_close(found.double(), wanted.clamp(max=limit), rtol=3e-5, atol=1e-37)


def test_the_ends_of_the_range() -> None:
    ends = torch.tensor([0.0, math.inf])
    largest = torch.finfo(torch.float32).max
    wanted = {"rkl": [1, 1], "sf": [1, 0], "js": [0, 1], "kl": [0, largest], "jf": [1, largest], "neyman": [largest, 0]}
    for name, values in wanted.items():
        assert DIVERGENCES[name].h(ends).tolist() == pytest.approx(values)


@given(r=RATIOS)
def test_identities_of_weights(r: float) -> None:
    ratio = torch.tensor([r], dtype=torch.float64)
    h = {name: float(divergence.h(ratio)) for name, divergence in DIVERGENCES.items()}
    assert h["js"] + h["sf"] == pytest.approx(1)
    assert h["jf"] == pytest.approx(h["kl"] + h["rkl"])
    assert 16 * h["sh"] ** 2 == pytest.approx(h["kl"])


def test_weights_at_one() -> None:
    one = torch.ones(1, dtype=torch.float64)
    found = {name: float(DIVERGENCES[name].h(one)) for name in DIVERGENCES}
    assert found == {"rkl": 1, "sf": 0.5, "js": 0.5, "sh": 0.25, "kl": 1, "jf": 2, "neyman": 1, "pearson": 1}


@pytest.mark.parametrize(("alpha", "name", "scale"), [(-1, "neyman", 1), (0, "rkl", 1), (0.5, "sh", 4), (1, "kl", 1)])
def test_alpha_family_holds_the_named_ones(alpha: float, name: str, scale: float) -> None:
    r = torch.logspace(-3, 3, 50, dtype=torch.float64)
    found, named = alpha_divergence(alpha), DIVERGENCES[name]
    torch.testing.assert_close(found.h(r), scale * named.h(r))
    # They differ by c (r - 1), which an expectation under q of a ratio does not see.
    difference = (found.f(r) - scale * named.f(r)) / (r - 1)
    torch.testing.assert_close(difference, difference[0].expand_as(r), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_given_function(name: str, kind: torch.dtype) -> None:
    r = torch.logspace(-3, 3, 50, dtype=kind)
    with torch.no_grad():
        found = divergence_of(GIVEN[name]).h(r)
    assert found.dtype == kind
    assert not found.requires_grad
    torch.testing.assert_close(found, DIVERGENCES[name].h(r), rtol=1e-4 if kind == torch.float32 else 1e-8, atol=1e-9)


def test_given_function_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"f\(1\)=1"):
        divergence_of(lambda r: r * r)
    with pytest.raises(ConfigError, match=r"'bent' has r\^2 f''"):
        divergence_of(lambda r: -((r - 1) ** 2), "bent")
    with pytest.raises(ConfigError, match="finite"):
        alpha_divergence(math.nan)
    assert float(divergence_of(lambda r: r - 1).h(torch.tensor(2.0))) == 0


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_variance_of_weights_between_gaussians(distance: float) -> None:
    """Var h / (E h)^2 for N(0, 1) against N(d, 1), in closed form for kl and sh."""
    x = torch.linspace(-12, 16, 20_001, dtype=torch.float64)
    q = torch.exp(-0.5 * (x - distance) ** 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    log_r = -0.5 * x**2 + 0.5 * (x - distance) ** 2
    for name, exponent in (("kl", 1.0), ("sh", 0.25)):
        h = DIVERGENCES[name].h_of_log(log_r)
        mean, square = (q * h).sum(), (q * h * h).sum()
        assert float(square / mean**2 - 1) == pytest.approx(math.expm1(exponent * distance**2), rel=1e-6)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean js"):
        DIVERGENCES["jsd"]
