"""The part of `bench scaling` that fits published tables."""

from __future__ import annotations

import pytest

from evaluation.benchmarks import scaling_tables
from launch.bench_table import verdict
from tests.support.scaling import TABLES, table


def test_absent_tables_leave_a_message(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv(scaling_tables.VARIABLE, raising=False)
    assert scaling_tables.run(True) == {}
    monkeypatch.setenv(scaling_tables.VARIABLE, str(tmp_path))
    assert scaling_tables.run(True) == {}
    told = capsys.readouterr()
    assert "is not set" in told.out + told.err
    assert "lacks chinchilla_epoch.csv" in told.out + told.err


@pytest.mark.timeout(600)
def test_figures_reach_their_goals(monkeypatch):
    table("gadre_fits.json")
    monkeypatch.setenv(scaling_tables.VARIABLE, str(TABLES))
    monkeypatch.setattr(scaling_tables, "SHARE", 225)  # 20 starts; more of them in test_published_tables.py
    figures = scaling_tables.run(True)
    for name in ("objective_gap", "gadre_error_gap", "objective_over_grid"):
        assert verdict(figures[name]) == "met", (name, figures[name])
    assert figures["speedup_vs_grid"]["value"] > 1
