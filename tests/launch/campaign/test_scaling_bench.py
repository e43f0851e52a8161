"""Figures of `bench scaling` from a campaign whose losses are known."""

from __future__ import annotations

import pytest

from launch import scaling_bench
from launch.campaign.opened import open_campaign
from tests.support.campaigns import measured


def test_figures_of_a_known_campaign(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling_bench, "unigram_bits", lambda campaign: 10.0)
    campaign = measured(open_campaign(scaling_bench.NAME, [f"dir={tmp_path}"]), noise=1e-3)
    figures = scaling_bench.measured(campaign, 60.0, True)
    assert figures["prediction_error"]["value"] < 0.03
    assert figures["prediction_error"]["goal"] == "<= 0.03"
    assert figures["jobs_done"]["value"] == 1
    assert figures["ar_interval_width"]["value"] > 0
    assert 0 <= figures["mdm_left_out_coverage"]["value"] <= 1
    assert figures["compute_gap"]["value"] > 1
    assert figures["mdm_below_unigram"]["value"] == pytest.approx(10 * 0.6931 - 3.5, abs=1.5)


def test_quick_settings_are_a_campaign(tmp_path):
    campaign = open_campaign(scaling_bench.NAME, [*scaling_bench.QUICK, f"dir={tmp_path}"])
    assert {len({c.budget for c in campaign.grid.cells if c.family == name}) for name in ("ar", "mdm")} == {3}
