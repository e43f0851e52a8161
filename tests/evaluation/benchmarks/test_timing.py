from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmarks.figure import figure
from evaluation.benchmarks.timing import grouped_ratio_of_medians, interleave, one_thread
from evaluation.estimate import Estimate, ratio_of_medians

SECONDS = st.floats(0.01, 10.0)
PARTS = st.lists(SECONDS, min_size=1, max_size=6)


def test_two_actions_are_timed_in_turns_and_warm_up_is_left_out():
    calls: list[str] = []
    first, second = interleave(lambda: calls.append("a"), lambda: calls.append("b"), pairs=4, warmup=2)
    assert calls == ["a", "b"] * 6
    assert len(first) == len(second) == 4
    assert min(first + second) >= 0.0


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_grouped_ratio_takes_medians_over_all_groups():
    ratio = grouped_ratio_of_medians([([3.0, 9.0], [1.0]), ([6.0], [2.0, 4.0]), ([6.0], [2.0])])
    assert ratio.estimate.value == 6.0 / 2.0
    assert ratio.estimate.n == 4
    assert ratio.low <= 3.0 <= ratio.high


def test_grouped_ratio_of_equal_groups_is_certain():
    ratio = grouped_ratio_of_medians([([1.2], [1.0])] * 5)
    assert (ratio.low, ratio.high, ratio.estimate.stderr) == pytest.approx((1.2, 1.2, 0.0))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(PARTS, PARTS), min_size=2, max_size=5), st.floats(0.1, 10.0))
def test_grouped_ratio_follows_the_unit_of_its_first_part(groups, factor):
    ratio = grouped_ratio_of_medians(groups, resamples=50)
    scaled = grouped_ratio_of_medians([([factor * x for x in a], b) for a, b in groups], resamples=50)
    for name in ("low", "high"):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(ratio, name))
    assert scaled.estimate.value == pytest.approx(factor * ratio.estimate.value)


@pytest.mark.parametrize("groups", [[([1.0], [1.0])], [([1.0], [1.0]), ([], [1.0])]])
def test_grouped_ratio_refuses_what_it_cannot_judge(groups):
    with pytest.raises(ValueError, match="two or more groups"):
        grouped_ratio_of_medians(groups)


def test_figures_carry_goal_interval_and_protocol():
    entry = figure(ratio_of_medians([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]), ">= 1.6", "two heads")
    assert (entry["value"], entry["n"], entry["goal"], entry["low"], entry["high"]) == (2.0, 3, ">= 1.6", 2.0, 2.0)
    assert entry["protocol"].startswith("two heads; 3 interleaved pairs")
    assert "low" not in figure(Estimate(1.0, None, 1))
