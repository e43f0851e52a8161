"""Which sampler counts as as good as the published one, and what is said where nothing can be compared."""

from __future__ import annotations

import math

import pytest

from evaluation.benchmarks import sgmse_long, sgmse_speed
from evaluation.benchmarks.sgmse_long import REFERENCE, Settings, as_good
from evaluation.estimate import Estimate, Ratio
from evaluation.speech import FileScore

SETTINGS = Settings(calls=(5, 8))
CALLS = {REFERENCE: 60.0, "exponential 5": 5.0, "exponential 8": 8.0}


def scores(si_sdr, estoi=0.7):
    return [FileScore(f"file {i}", 8000, {"si_sdr": si_sdr + i, "estoi": estoi}) for i in range(3)]


@pytest.mark.parametrize(("worse", "wanted"), [((0.19, 0.0), True), ((0.21, 0.0), False), ((0.0, 0.011), False)])
def test_as_good_is_within_the_tolerance_of_each_figure(worse, wanted):
    found = scores(10 - worse[0], 0.7 - worse[1])
    assert as_good(found, scores(10)) is wanted


def test_the_fewest_calls_of_those_that_are_as_good(monkeypatch):
    timed = []

    def equal_quality(reference, chosen, pairs):
        timed.append((reference.sampling.sampler, chosen.sampling.steps, pairs))
        return Ratio(Estimate(7.0, 0.1, 5, "", ""), 6.5, 7.5)

    monkeypatch.setattr(sgmse_speed, "equal_quality", equal_quality)
    found = {REFERENCE: scores(10), "exponential 5": scores(9), "exponential 8": scores(9.9)}
    figures = sgmse_long._calls(found, CALLS, scores(5), SETTINGS, "note")
    assert figures["calls_ratio"]["value"] == pytest.approx(8 / 60)
    assert timed == [("predictor_corrector", 8, SETTINGS.pairs)]
    assert figures["enhance_speedup_equal_quality"]["value"] == 7.0


@pytest.mark.parametrize(
    ("noisy", "as_fast", "told"), [(8.5, 10, "nothing is compared"), (5, 9, "no sampler is as good")]
)
def test_nothing_is_compared_where_the_reference_fails_or_nothing_is_as_good(noisy, as_fast, told):
    found = {REFERENCE: scores(10), "exponential 5": scores(as_fast), "exponential 8": scores(as_fast)}
    figures = sgmse_long._calls(found, CALLS, scores(noisy), SETTINGS, "note")
    for name in ("calls_ratio", "enhance_speedup_equal_quality"):
        assert math.isnan(figures[name]["value"])
        assert told in figures[name]["protocol"]
