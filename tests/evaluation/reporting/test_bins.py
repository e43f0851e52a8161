"""Curves over bins in the report: where they are drawn, what is left open, and what is said of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.page import HOSTILE, page_of

EDGES = [0.1, 1.0, 10.0, 40.0]
TOLD = {"label": "noise level σ", "edges": EDGES, "log": True}
RATIOS = ("ratio_by_time", "ess_by_time", "auc_by_time")


@pytest.fixture
def folder_of(tmp_path, fake):
    """Makes a run folder: metrics of each step, and what status.json tells of curves."""

    def make(rows, curves=None):
        lines = [
            {"kind": "train", "step": step, "loss": dict.fromkeys(metrics, 1.0), "metrics": metrics}
            for step, metrics in enumerate(rows, start=1)
        ]
        fake.write_lines(tmp_path / "metrics.jsonl", lines)
        (tmp_path / "status.json").write_text(json.dumps({} if curves is None else {"curves": curves}))
        return tmp_path

    return make


def lines_of(chart):
    return [one for one in chart["series"] if one["kind"] == "line"]


def test_curves_stand_on_the_axis_that_the_method_tells(folder_of):
    rows = [{"student": {"ratio_by_time": [1.0, 2.0, k]}} for k in (2, 4)]
    chart = page_of(folder_of(rows, {"ratio_by_time": TOLD})).charts["noise-training-student-ratio_by_time"]
    assert chart["x"] == {"label": "noise level σ", "range": [0.1, 40], "scale": "log", "ticks": EDGES}
    first, last = lines_of(chart)
    assert first["x"] == pytest.approx([0.1**0.5, 10**0.5, 20], rel=1e-5)
    assert (first["y"], last["y"]) == ([1, 2, 2], [1, 2, 4])
    level = next(one for one in chart["series"] if one["kind"] == "limit")
    assert (level["label"], level["x"], level["y"]) == ("calibrated", [0.1, 40], [1, 1])


def test_a_linear_axis_has_the_middles_of_its_bins_and_round_numbers(folder_of):
    told = {"label": "length", "edges": [-2, 0, 1], "log": False}
    charts = page_of(folder_of([{"fit": {"error_by_length": [1.0, 2.0]}}], {"error_by_length": told})).charts
    chart = charts["noise-training-fit-error_by_length"]
    assert chart["title"] == "Error by length"
    assert chart["x"] == {"label": "length", "range": [-2, 1]}
    assert lines_of(chart)[0]["x"] == [-1, 0.5]


def test_bins_without_samples_are_gaps_and_weigh_nothing_in_means(folder_of):
    rows = [{"student": {"ess_by_time": [0.2, None, k]}} for k in [0.4, None] * 5]
    chart = page_of(folder_of(rows, {"ess_by_time": TOLD})).charts["noise-training-student-ess_by_time"]
    assert len(lines_of(chart)) == 5
    for line in lines_of(chart):
        assert line["y"] == line["low"] == line["high"] == [0.2, None, 0.4]


def test_where_nothing_is_told_a_loss_is_drawn_from_clean_to_noise_and_nothing_else_is(folder_of):
    """So are folders of runs before this was told."""
    charts = page_of(folder_of([{"fit": {"loss_by_noise": [1.0, 2.0], "ratio_by_time": [1.0, 1.0]}}])).charts
    assert [name for name in charts if name.startswith("noise")] == ["noise-training-fit"]
    chart = charts["noise-training-fit"]
    assert chart["x"] == {"label": "noise level (0 clean, 1 all noise)", "range": [0, 1]}
    assert lines_of(chart)[0]["x"] == [0.25, 0.75]


@pytest.mark.parametrize(
    "told",
    [
        TOLD | {"edges": EDGES[:-1]},
        TOLD | {"edges": [0.0, 1.0, 10.0, 40.0]},
        TOLD | {"edges": [1.0, 0.1, 10.0, 40.0]},
        TOLD | {"edges": [0.1, "1", 10.0, 40.0]},
        TOLD | {"edges": [0.1, 1.0, 10.0, float("inf")]},
        TOLD | {"edges": 3},
        [TOLD],
    ],
    ids=["too few", "zero", "descending", "a text", "infinite", "a number", "a list"],
)
def test_bins_that_cannot_be_count_as_not_told(folder_of, told):
    row = {"fit": {"loss_by_noise": [1.0, 2.0, 3.0], "ess_by_time": [1.0, 1.0, 1.0]}}
    charts = page_of(folder_of([row], {"loss_by_noise": told, "ess_by_time": told})).charts
    assert charts["noise-training-fit"]["x"]["range"] == [0, 1]
    assert not any(name.endswith("ess_by_time") for name in charts)


def test_a_hostile_label_stays_text(folder_of):
    page = page_of(
        folder_of([{"fit": {"loss_by_noise": [1.0, 2.0, 3.0]}}], {"loss_by_noise": TOLD | {"label": HOSTILE}})
    )
    assert page.count("script") == 3
    assert page.count("img") == 0


def test_updates_are_named_where_several_have_a_curve_and_repetitions_left_out(folder_of):
    row = {name: {"auc_by_time": [0.5, 0.6, 0.7]} for name in ("critic", "critic_more")}
    charts = page_of(folder_of([row], {"auc_by_time": TOLD})).charts
    titles = [chart["title"] for name, chart in charts.items() if name.startswith("noise")]
    assert titles == ["AUC of the discriminator by noise level"]
    row = {name: {"auc_by_time": [0.5, 0.6, 0.7]} for name in ("first_critic", "second")}
    charts = page_of(folder_of([row], {"auc_by_time": TOLD})).charts
    titles = [chart["title"].partition(": ")[2] for name, chart in charts.items() if name.startswith("noise")]
    assert titles == ["first_critic", "second"]


@pytest.mark.parametrize(("names", "trusted", "losses"), [(RATIOS, True, False), (("loss_by_noise",), False, True)])
def test_the_section_says_how_to_read_it(folder_of, names, trusted, losses):
    rows = [{"fit": {name: [0.5, 0.6, 0.7] for name in names}}]
    text = page_of(folder_of(rows, dict.fromkeys(names, TOLD))).text
    assert ("The density ratio can be trusted where" in text) is trusted
    assert ("the loss comes from" in text) is losses
    assert ("1 where the discriminator is calibrated" in text) is trusted
    assert "the stronger the line, the later" in text


def test_no_more_lines_than_parts_of_the_training(folder_of):
    rng = np.random.default_rng(0)
    rows = [{"fit": {"loss_by_noise": rng.normal(size=3).tolist()}} for _ in range(23)]
    lines = lines_of(page_of(folder_of(rows, {"loss_by_noise": TOLD})).charts["noise-training-fit"])
    assert [line["label"] for line in lines] == ["1–5", "6–10", "11–15", "16–19", "20–23"]
    assert [line["tone"] for line in lines] == ["s0", "s1", "s2", "s3", "s4"]
