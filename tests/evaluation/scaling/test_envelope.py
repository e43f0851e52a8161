"""The lower envelope of training curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.scaling.envelope import Curve, lower_envelope, prepared, smooth_gaussian, smooth_proportional
from generative.errors import DataError
from tests.support.scaling import HOFFMANN

SIZES = np.geomspace(2e6, 2e9, 40)


def curve(N, schedule="constant"):
    D = np.arange(1, 401) * N / 2
    return Curve(N, 6 * N * D, D, HOFFMANN.loss(N, D), schedule, f"{N:.0f}")


def test_constant_rates_give_the_frontier():
    found = lower_envelope([curve(N) for N in SIZES])
    middle = (found.C > 1e18) & (found.C < 1e20)
    np.testing.assert_allclose(found.loss[middle], HOFFMANN.optimum(found.C[middle])[2], rtol=0.01)
    assert found.N_opt.slope == pytest.approx(HOFFMANN.a, abs=0.03)
    assert found.N_opt.slope + found.D_opt.slope == pytest.approx(1, abs=0.02)
    assert not np.isin(found.N[found.inner], SIZES[[0, -1]]).any()


def test_other_schedules_are_refused_or_told():
    curves = [curve(N) for N in SIZES[:5]] + [curve(SIZES[6], "cosine")]
    with pytest.raises(DataError, match=r"1 of 6 curves \(schedule 'cosine'\)"):
        lower_envelope(curves)
    assert not next(one for one in lower_envelope(curves, force=True).checks if one.name == "schedules").ok
    assert lower_envelope([replace(one, schedule="wsd") for one in curves]).checks[1].ok


def test_diverged_curves_are_left_out_and_told():
    bad = curve(SIZES[3])
    bad = replace(bad, loss=np.where(np.arange(400) > 200, 50.0, bad.loss))
    found = lower_envelope([curve(SIZES[0]), curve(SIZES[1]), bad])
    assert SIZES[3] not in found.N
    assert "1 curves (diverged" in next(one for one in found.checks if one.name == "excluded").text
    with pytest.raises(DataError, match="curves of 1 usable sizes"):
        lower_envelope([curve(SIZES[0]), bad])


def test_smoothing_keeps_lines_and_constants():
    steps = np.arange(1.0, 2001.0)
    np.testing.assert_allclose(smooth_proportional(steps, np.full(2000, 3.0)), 3.0)
    np.testing.assert_allclose(smooth_gaussian(np.full(200, 3.0)), 3.0)
    line = smooth_proportional(steps, 5 - steps / 1000)
    np.testing.assert_allclose(line[100:1900], (5 - steps / 1000)[100:1900], atol=1e-3)
    noisy = np.random.default_rng(0).normal(3, 0.1, 2000)
    assert smooth_proportional(steps, noisy)[1000:1900].std() < 0.03
    assert smooth_gaussian(noisy)[100:-100].std() < 0.03


def test_a_log_belongs_to_the_middle_of_its_interval():
    moved = prepared(Curve(1e6, np.array([2.0, 4.0, 8.0]), np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 1.0]), "wsd"))
    assert moved.C.tolist() == [1.0, 3.0, 6.0]
    assert moved.D.tolist() == [0.5, 1.5, 3.0]
