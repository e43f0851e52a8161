"""The benchmark of the reversal curse at its smallest, and what its figures mean."""

from __future__ import annotations

import pytest

from evaluation.benchmarks import masked_reverse
from evaluation.benchmarks.masked_reverse import REVERSED, Settings, summary
from generative.data.reversal import TESTS


def test_figures_are_means_and_differences_over_seeds():
    def shares(value):
        return dict.fromkeys(TESTS, 0.5) | dict.fromkeys(REVERSED, value)

    cells = {}
    for seed, (ar, mdm) in enumerate([(0.0, 0.8), (0.2, 0.6)]):
        cells[seed, "ar"] = {"": shares(ar)}
        cells[seed, "mdm"] = {"": shares(mdm), "_guided": shares(mdm + 0.1)}
        cells[seed, "sft"] = {"": shares(0.0), "_guided": shares(0.0)}
    found = summary(Settings(seeds=2), cells)
    assert found["mdm_over_ar_reversed"]["value"] == pytest.approx(0.6)
    assert found["mdm_over_ar_reversed"]["stderr"] == pytest.approx(0.2)
    assert found["mdm_over_ar_as_read"]["value"] == 0.0
    assert found["unsupervised_guidance_gain_reversed"]["value"] == pytest.approx(0.1)
    assert found["ar_name_to_description_reversed"]["values"] == [0.0, 0.2]
    assert len(found) == 5 * 4 + 4


def test_it_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("GENERATIVE_BENCH", str(tmp_path))
    small = Settings(people=1, steps=2, seeds=1, small=("method.network.layers=1", "method.network.width=16"))
    monkeypatch.setattr(masked_reverse, "QUICK", small)
    found = masked_reverse.run(True)
    assert all(0 <= found[f"ar_{asked}"]["value"] <= 1 for asked in TESTS)
    monkeypatch.setattr(masked_reverse, "train", None)  # what is known is not trained again
    assert masked_reverse.run(True) == found
