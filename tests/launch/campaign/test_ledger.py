"""The ledger: two drivers, damage, changes."""

from __future__ import annotations

import json

import pytest

from generative.errors import DataError, RunFolderError
from launch.campaign.ledger import DONE, RUNNING, Ledger, totals
from launch.campaign.opened import open_campaign
from launch.campaign.report import write_report


@pytest.fixture
def campaign(campaign_file):
    one = open_campaign(campaign_file())
    one.ledger.plan(one.jobs)
    return one


def result(loss=2.0):
    return {"loss": loss, "N": 1.0, "D": 2.0, "C": 12.0}


def test_what_is_written_is_read(campaign):
    job = campaign.jobs[0]
    campaign.ledger.write(RUNNING, job)
    campaign.ledger.write(DONE, job, spent=5.0, wasted=1.0, result=result())
    entry = campaign.entries()[job.hash]
    assert (entry.state, entry.starts, entry.result["loss"]) == (DONE, 1, 2.0)
    assert totals(campaign.entries().values()) == (5.0, 1.0)
    campaign.ledger.plan(campaign.jobs)
    assert len(campaign.ledger.path.read_text().splitlines()) == len(campaign.jobs) + 2


def test_one_driver_for_one_job(campaign):
    job, other = campaign.jobs[0], Ledger(campaign.folder)
    assert campaign.ledger.claim(job)
    assert not other.claim(job)
    assert other.claim(campaign.jobs[1])
    campaign.ledger.release(job, DONE)
    assert other.claim(job)


def test_torn_end_is_left_out_and_damaged_middle_refused(campaign):
    path = campaign.ledger.path
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines) + '{"version": 1, "ki')
    assert len(campaign.ledger.entries()) == 4
    path.write_text(lines[0] + lines[1][:20] + "\n" + "".join(lines[2:]))
    with pytest.raises(DataError, match="line 2 of 4 is damaged"):
        campaign.ledger.entries()
    path.write_text(lines[0] + json.dumps({"version": 1}) + "\n")
    with pytest.raises(DataError, match="line 2 of 2 is damaged"):
        campaign.ledger.entries()


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "dooe"},
        {"job": ["a"]},
        {"spent": "5.0"},
        {"wasted": [1.0]},
        {"result": 3},
        {"result": {"loss": "2.0"}},
        {"settings": []},
    ],
)
def test_a_line_that_is_json_and_says_nonsense_is_damaged(campaign, damage):
    line = {"version": 1, "kind": DONE, "job": campaign.jobs[0].hash, "name": "a", "spent": 5.0, "result": result()}
    with campaign.ledger.path.open("a") as file:
        file.write(json.dumps(line | damage) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(DataError, match="line 5 of 6 is damaged"):
        campaign.ledger.entries()


def test_two_results_of_one_cell(campaign):
    job = campaign.jobs[0]
    campaign.ledger.write(DONE, job, spent=5.0, result=result())
    campaign.ledger.write(DONE, job, spent=5.0, result=result())
    assert totals(campaign.entries().values()) == (5.0, 0.0)
    campaign.ledger.write(DONE, job, spent=5.0, result=result(3.0))
    with pytest.raises(DataError, match="two different results"):
        campaign.ledger.entries()


def test_changed_configuration_under_an_old_ledger(campaign, campaign_file):
    changed = open_campaign(campaign_file("other.yaml"), ["set=[train.optimizer.lr=1e-3]"])
    with pytest.raises(RunFolderError, match=r"train.optimizer.lr \(0.003 there, 0.001 now\)"):
        changed.ledger.plan(changed.jobs)
    with pytest.raises(RunFolderError, match=r"has the cell .* with other settings"):
        write_report(changed, draws=20)
    assert not (campaign.folder / "report.html").exists()
    more = open_campaign(campaign_file("more.yaml"), ["budgets=[8e7, 1.6e8]"])
    gone = more.ledger.plan(more.jobs)
    assert sorted(gone) == sorted(job.name for job in campaign.jobs if job.cell.budget == 4e7)
