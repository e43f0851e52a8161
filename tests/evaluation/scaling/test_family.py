"""Laws of one family in any state of a campaign."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scaling.family import fit_family, gap_of_families
from evaluation.scaling.forms import Surface
from generative.errors import DataError

TOY = Surface(E=1.5, A=40.0, B=80.0, alpha=0.4, beta=0.35)
WIDE = Surface(E=1.5, A=400.0, B=80.0, alpha=0.7, beta=0.3)
BUDGETS = (1e12, 3e12, 1e13, 3e13)


def rows(surface=TOY, budgets=BUDGETS, sizes=5, shift=1.0, noise=0.0):
    random = np.random.default_rng(0)
    found = []
    for C in budgets:
        best = float(surface.optimum(C)[0])
        for N in best * shift * np.geomspace(1 / 6, 6, sizes):
            loss = float(surface.loss(N, C / (6 * N)) * np.exp(noise * random.standard_normal()))
            name = f"{C:g} {N:.3g}"
            found.append({"run": name, "cell": name, "N": N, "D": C / (6 * N), "C": C, "budget": C, "loss": loss})
    return found


def test_full_grid_gives_all_laws():
    laws = fit_family("toy", rows(noise=1e-4), draws=20)
    assert not laws.problems
    assert not laws.to_do
    assert laws.k == pytest.approx(6)
    assert float(laws.surface.surface.a) == pytest.approx(TOY.a, abs=0.02)
    assert {one.budget for one in laws.ahead} == {3e13}
    assert max(abs(one.error) for one in laws.ahead) < 0.002
    told, by = laws.predict(1e14)
    assert "surface" in by
    assert told.loss.estimate.value == pytest.approx(float(TOY.optimum(1e14)[2]), rel=2e-3)


def test_too_few_runs_are_told_and_nothing_is_fitted():
    laws = fit_family("toy", rows(budgets=BUDGETS[:1], sizes=4), draws=20)
    assert (laws.isoflop, laws.surface and laws.draws) == (None, None) or laws.problems
    assert laws.problems
    assert fit_family("toy", []).points is None
    with pytest.raises(DataError, match="no law could be fitted"):
        fit_family("toy", []).predict(1e14)


def test_unbracketed_budgets_are_named():
    laws = fit_family("toy", rows(shift=20.0), draws=20)
    assert laws.isoflop is None
    assert len(laws.to_do) == len(BUDGETS)
    assert all("not bracketed" in line for line in laws.to_do)


def test_diverged_runs_are_left_out_and_counted():
    table = rows(noise=1e-4)
    table[3] |= {"status": "diverged", "loss": None}
    laws = fit_family("toy", table, draws=20)
    assert len(laws.points) == len(table) - 1
    assert [one.why for one in laws.points.excluded] == ["diverged"]


def test_gap_of_shifted_families():
    """The same frontier at ten times the compute."""
    slow = [row | {"C": 10 * row["C"], "budget": 10 * row["budget"]} for row in rows(noise=1e-5)]
    laws = [fit_family(name, table, draws=20) for name, table in (("slow", slow), ("fast", rows(noise=1e-5)))]
    _, _, gap = gap_of_families(*laws)
    assert gap.factor.value == pytest.approx(10, rel=0.02)
    apart = [row | {"loss": row["loss"] + 5} for row in slow]
    bound = gap_of_families(fit_family("slow", apart, draws=20), laws[1])[2]
    assert bound.factor.bound == "lower"
    assert ">=" in str(bound)


def check(laws, name):
    (found,) = [one for one in laws.checks if one.name == name]
    return found


def test_one_fit_is_checked_by_another_and_by_repeats():
    once = fit_family("toy", rows(noise=3e-3), draws=20)
    assert "not known" in check(once, "seeds").text
    assert check(once, "floor E").ok
    bias = check(once, "parabolas")
    assert bias.ok, bias.text
    again = [
        row | {"run": f"{row['run']} again", "seed": 1, "loss": row["loss"] * 1.004} for row in rows(noise=3e-3)[:3]
    ]
    repeated = fit_family("toy", [row | {"seed": 0} for row in rows(noise=3e-3)] + again, draws=20)
    assert check(repeated, "seeds").ok
    assert "0.0028 between seeds (3 degrees" in check(repeated, "seeds").text
    quiet = [row | {"loss": row["loss"] / 1.004 * 1.00001} for row in again]
    misses = fit_family("toy", [row | {"seed": 0} for row in rows(noise=3e-3)] + quiet, draws=20)
    assert not check(misses, "seeds").ok


def test_parabolas_whose_centres_drift_are_told():
    drifting = [
        row for C, shift in zip(BUDGETS, (0.3, 0.6, 1.2, 2.4), strict=True) for row in rows(WIDE, (C,), 7, shift)
    ]
    told = check(fit_family("drifting", drifting, draws=20), "parabolas")
    assert not told.ok
    assert "off by" in told.text
