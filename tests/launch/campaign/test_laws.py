"""Reports and predictions of a campaign whose losses lie on a known surface."""

from __future__ import annotations

import csv
import re

import pytest

from evaluation.scaling.family import fit_family
from generative.errors import ConfigError
from launch.campaign.cells import shown
from launch.campaign.ledger import DIVERGED
from launch.campaign.opened import open_campaign
from launch.campaign.prediction import predict
from launch.campaign.proposal import nearest_size
from launch.campaign.report import write_report
from launch.campaign.results import next_cells, rows
from launch.schema import load_run_config
from tests.support.campaigns import LAWS, measured

WHOLE_GRID = ("families.ar.near=null", "families.mdm.near=null", "extra=[]")


@pytest.fixture
def campaign(tmp_path):
    return open_campaign("campaign/mdm_vs_ar_tiny", [f"dir={tmp_path}/c"])


@pytest.fixture
def unarranged(monkeypatch):
    """Figures are drawn without finding room for their parts, which takes as long; test_running.py has it done."""
    monkeypatch.setattr("matplotlib.figure.Figure.set_layout_engine", lambda *given, **options: None)


def test_predictions_are_those_of_the_surface(campaign):
    measured(campaign, noise=1e-4)
    for one in predict(campaign, 3e13, draws=40):
        truth = LAWS[one.family]
        N, D, loss = truth.optimum(3e13)
        told = one.prediction
        assert told.loss.estimate.value == pytest.approx(loss, rel=0.01)
        assert told.N.estimate.value == pytest.approx(N, rel=0.1)
        assert told.D.estimate.value == pytest.approx(D, rel=0.1)
        assert told.run.low < told.run.high
        run = load_run_config(str(one.path))
        assert run.train.steps == one.cell.steps
        assert pytest.approx(told.N.estimate.value, rel=0.15) == one.cell.N
        assert one.cell.flops == pytest.approx(3e13, rel=0.01)
        assert any("loss" in text and "lr" in text for _, text in one.lines())
    with pytest.raises(ConfigError, match="cannot be spent"):
        predict(campaign, -1.0, draws=20)
    with pytest.raises(ConfigError, match=r"leaves nothing of its .* steps"):
        predict(campaign, 1e9, draws=20)


def test_half_a_campaign_says_what_is_missing(campaign, unarranged):
    measured(campaign, but=["mdm-8e12", "mdm-3.3e12", "ar-1.05e12-d48", "ar-3e10-d16", "ar-3e10-d24"])
    lost = next(job for job in campaign.jobs if job.name.startswith("mdm-3.3e12"))
    campaign.ledger.write(DIVERGED, lost, cause="the loss is nan")
    path, lines = write_report(campaign, draws=20)
    text = " ".join(words for _, words in lines)
    assert "cells of the grid are left" in text
    assert re.search("mdm.* needs", text)
    page = path.read_text()
    for section in ("Compute gap", "Where the compute went", "mdm: numbers", "ar: checks", "diverged"):
        assert section in page
    assert [row["status"] for row in rows(campaign, campaign.entries(), "mdm")].count(DIVERGED) == 1
    table = list(csv.DictReader((campaign.folder / "results.csv").open()))
    by_hash = campaign.entries()
    for row, job in zip(table, [job for job in campaign.jobs if job.cell], strict=True):
        assert (row["cell"], float(row["N"]), int(row["D"])) == (job.name, job.cell.N, job.cell.tokens)
        assert row["loss"] == str(by_hash[job.hash].result.get("loss", ""))
    assert [row["cause"] for row in table].count("the loss is nan") == (lost.cell is not None)


def test_size_that_is_proposed_is_near(campaign):
    for N in (2e4, 1.3e5, 3e6):
        size = nearest_size(campaign, "ar", N)
        own = [
            f"sizes=[{{layers: {size.layers}, heads: {size.heads}, width: {size.width}}}]",
            *WHOLE_GRID,
            "min_steps=1",
        ]
        grid = open_campaign(
            "campaign/mdm_vs_ar_tiny", [*own, "families.ar.budgets=[1e13]", "families.mdm.budgets=[1e13]"]
        ).grid
        assert pytest.approx(N, rel=0.35) == grid.cells[0].N


def test_under_mup_heads_of_what_is_proposed_are_as_wide():
    sizes = ", ".join(f"{{layers: 2, heads: {heads}, width: {16 * heads}}}" for heads in (2, 4, 6))
    rule = "rule={name: mup, base_width: 32}"
    campaign = open_campaign("campaign/mdm_vs_ar_tiny", [rule, f"sizes=[{sizes}]", *WHOLE_GRID])
    for N in (1e4, 3e5):
        size = nearest_size(campaign, "ar", N)
        assert size.width == 16 * size.heads
    with pytest.raises(ConfigError, match="no shape"):
        nearest_size(campaign, "ar", 1e3)


def test_groups_of_heads_are_kept_in_what_is_proposed():
    settings = ["families.ar.set=[method.network.kv_groups=2]", "sizes=[{layers: 2, heads: 4, width: 32}]", *WHOLE_GRID]
    size = nearest_size(open_campaign("campaign/mdm_vs_ar_tiny", settings), "ar", 8e4)
    assert size.heads % 2 == 0
    again = [*settings[:1], f"sizes=[{size.model_dump_json()}]", "families.ar.budgets=[1e13]", *WHOLE_GRID]
    grid = open_campaign("campaign/mdm_vs_ar_tiny", [*again, "families.mdm.budgets=[1e13]", "min_steps=1"]).grid
    assert pytest.approx(8e4, rel=0.2) == next(cell for cell in grid.cells if cell.family == "ar").N


def test_a_minimum_that_no_shape_would_bracket_is_still_told(tmp_path, monkeypatch):
    campaign = measured(open_campaign("campaign/mdm_vs_ar_tiny", [f"dir={tmp_path}/c"]), but=["ar-3e10-d"])
    entries = campaign.entries()
    known = [row for row in rows(campaign, entries, "ar") if row["N"] > 4e4]
    monkeypatch.setattr("launch.campaign.proposal.FAR", 0.0)
    lines = next_cells(campaign, entries, [fit_family("ar", known, draws=20)])
    assert any("would be next, but ar: no shape like those" in line for line in lines), lines


def test_what_is_proposed_can_be_pasted_into_extra(tmp_path):
    settings = [
        "sizes=[{layers: 2, heads: 2, width: 32, ff_width: 48}]",
        "families.ar.budgets=[1.23456789e+12]",
        "families.mdm.budgets=[1.0e+12]",
        *WHOLE_GRID,
        f"dir={tmp_path}/c",
    ]
    campaign = measured(open_campaign("campaign/mdm_vs_ar_tiny", settings))
    entries = campaign.entries()
    laws = fit_family("ar", rows(campaign, entries, "ar"), draws=20)
    (line,) = next_cells(campaign, entries, [laws])
    extra = line[line.index("{") : line.rindex("}") + 1]
    cell = open_campaign("campaign/mdm_vs_ar_tiny", [*settings, f"extra=[{extra}]"]).grid.cells[-1]
    assert cell.budget == laws.valleys[0].budget
    assert pytest.approx(laws.valleys[0].proposal, rel=0.35) == cell.N
    assert cell.shape.ff_width == 1.5 * cell.shape.width


@pytest.mark.parametrize(
    ("number", "text"), [(1e12, "1e12"), (2.5e11, "2.5e11"), (6e18, "6e18"), (1e-5, "1e-5"), (250, "250")]
)
def test_budgets_in_names(number, text):
    assert shown(number) == text


def test_a_size_beyond_all_shapes_is_refused(campaign):
    measured(campaign, noise=1e-4)
    with pytest.raises(ConfigError, match="no shape like those of the campaign has N"):
        predict(campaign, 1e40, draws=20)
