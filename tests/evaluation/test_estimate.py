import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.estimate import (
    Estimate,
    bootstrap_median,
    bootstrap_ratio,
    format_value,
    mean_estimate,
    ratio_of_medians,
)

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (3.2741, 0.021, "3.27 ± 0.02"),
        (3.2741, 0.0138, "3.274 ± 0.014"),
        (0.5, 0.0996, "0.50 ± 0.10"),
        (12345.6, 234.0, "12,300 ± 200"),
        (12345.6, 1.9, "12,346 ± 2"),
        (3.2741, None, "3.274 (no error known)"),
        (3.2741, math.inf, "3.274 (no error known)"),
        (3.2741, 0.0, "3.274 ± 0"),
        (math.nan, 0.1, "not finite"),
    ],
)
def test_the_digits_follow_the_error(value, stderr, text):
    assert format_value(value, stderr) == text


def test_an_estimate_reads_as_value_error_and_unit():
    assert str(Estimate(3.274, 0.021, 96, "bits/byte")) == "3.27 ± 0.02 bits/byte"


@given(
    FINITE, st.none() | st.floats(0, 1e3), st.integers(0, 10**9), st.text(), st.sampled_from([None, "upper", "lower"])
)
def test_json_gives_the_same_estimate_back(value, stderr, n, text, bound):
    one = Estimate(value, stderr, n, text, text, bound)
    assert Estimate.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


def test_a_number_that_is_not_finite_survives_json_as_nan():
    back = Estimate.from_json(json.loads(json.dumps(Estimate(math.inf, math.nan, 3).to_json(), allow_nan=False)))
    assert math.isnan(back.value)
    assert back.stderr is None


@pytest.mark.parametrize("data", [{}, {"value": "x"}, {"value": []}, {"value": 1, "n": {}}])
def test_what_is_no_estimate_is_refused(data):
    with pytest.raises(ValueError):
        Estimate.from_json(data)


def test_the_standard_error_of_a_mean():
    one = mean_estimate([1.0, 2.0, 3.0, 4.0])
    assert one.value == 2.5
    assert one.stderr == pytest.approx(math.sqrt(5 / 3 / 4))
    assert one.n == 4


def test_one_value_has_no_known_error_and_none_no_mean():
    assert mean_estimate([2.0]).stderr is None
    with pytest.raises(ValueError):
        mean_estimate([])


def test_scaling_changes_value_and_error_alike():
    one = Estimate(2.0, 0.1, 5, "nats/token").scaled(0.5, "bits/byte")
    assert (one.value, one.stderr, one.unit, one.n) == (1.0, 0.05, "bits/byte", 5)


def test_the_ratio_of_medians_and_its_interval_are_exact_for_proportional_pairs():
    b = np.linspace(1, 2, 51)
    ratio = ratio_of_medians(3 * b, b)
    assert ratio.estimate.value == pytest.approx(3)
    assert (ratio.low, ratio.high) == (pytest.approx(3), pytest.approx(3))


def test_the_interval_of_a_ratio_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ratio = ratio_of_medians(1.1 * rng.lognormal(0, 0.1, 100), rng.lognormal(0, 0.1, 100))
        held += ratio.low <= 1.1 <= ratio.high
    assert 85 <= held <= 100


def test_the_same_numbers_give_the_same_interval():
    rng = np.random.default_rng(0)
    a, b = rng.random(30) + 1, rng.random(30) + 1
    assert ratio_of_medians(a, b) == ratio_of_medians(a, b)


def test_a_slow_drift_widens_the_interval_of_neighbours_that_are_alike():
    drift = 1 + 0.2 * np.sin(np.linspace(0, 4 * np.pi, 216))
    steady = np.random.default_rng(0).permutation(drift)
    flat = np.ones(216)
    wide, narrow = (bootstrap_ratio(x, flat, lambda v: np.median(v, axis=-1)) for x in (drift, steady))
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_the_interval_of_a_median_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for seed in range(100):
        median = bootstrap_median(np.random.default_rng(seed).lognormal(0, 0.1, 40), "s")
        held += median.low <= 1.0 <= median.high
    assert 85 <= held <= 100
    assert (median.estimate.n, median.estimate.unit) == (40, "s")
    with pytest.raises(ValueError):
        bootstrap_median([1.0])


@pytest.mark.parametrize(("a", "b", "level"), [([1.0], [1.0], 0.9), ([1, 2], [1], 0.9), ([1, 2], [1, 2], 1.0)])
def test_ratios_refuse_what_they_cannot_resample(a, b, level):
    with pytest.raises(ValueError):
        ratio_of_medians(a, b, level=level)
