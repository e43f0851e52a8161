"""Campaigns that train for real, in this process: results, resumption, trunks, reports, predictions."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from generative.errors import ConfigError, DataError
from generative.training.checkpoint import open_checkpoint
from launch.campaign.cells import with_schedule
from launch.campaign.jobs import jobs_of
from launch.campaign.ledger import DIVERGED, DONE
from launch.campaign.opened import open_campaign
from launch.campaign.prediction import predict
from launch.campaign.report import status_lines, write_report
from launch.campaign.running import run_campaign
from launch.campaign.work import ended, hand_on, work


class Quiet:
    terminal = False

    def __init__(self):
        self.lines = []

    def line(self, label, text):
        self.lines.append((label, text))

    def progress(self, *words):
        pass

    def end_progress(self):
        pass


def tensors(folder):
    checkpoint = open_checkpoint(folder)
    return {name: checkpoint.tensor(name) for name in checkpoint.names()}


def test_runs_reports_and_goes_on(campaign_file):
    """A grid that is run, looked at half-way, extended, and never trained twice."""
    path, console = campaign_file(wsd={"decay": 0.25, "warmup_steps": 2}), Quiet()
    half = open_campaign(path, ["limit.flops=1.1e8"])
    assert run_campaign(half, console) == 0
    assert ["is reached; raise the limit to go on" in text for label, text in console.lines if label == "stop"] == [
        True
    ]
    states = [entry.state for entry in half.entries().values()]
    assert 0 < states.count(DONE) < len(states)
    page, lines = write_report(half, draws=20)
    assert "cells of the grid are left" in " ".join(text for _, text in lines)
    assert "<img" in page.read_text()

    whole = open_campaign(path)
    assert run_campaign(whole, Quiet()) == 0
    entries = whole.entries()
    assert {entry.state for entry in entries.values()} == {DONE}
    for job in whole.jobs:
        found = entries[job.hash].result
        assert entries[job.hash].spent == pytest.approx(job.flops)
        if job.cell:
            assert 0 < found["loss"] < 8
            assert found["C"] == pytest.approx(6 * found["N"] * found["D"])
            assert found["params_total"] > found["params_matmul"]
            told = json.loads((whole.folder / job.folder / "evaluation.json").read_text())
            assert set(told["figures"]) == {found["loss_name"], f"{found['loss_name']}_nats_per_token"}
            assert set(found["flops_per_token"]) >= {"six_n_head", "six_n_nonemb", "exact", "chinchilla"}
    size = whole.ledger.path.stat().st_size
    assert run_campaign(whole, Quiet()) == 0
    assert whole.ledger.path.stat().st_size == size

    page, lines = write_report(whole, draws=20)
    text = page.read_text()
    assert "not bracketed" in text
    assert 'src="http' not in text
    assert "https://" not in text
    assert any(label == "next" and "extra" in words for label, words in lines)
    assert set(json.loads((whole.folder / "laws.json").read_text())) == {"ar"}
    assert ("states", "8 done") in status_lines(whole)
    with pytest.raises(DataError, match="no law could be fitted"):
        predict(whole, 1e10)
    with pytest.raises(ConfigError, match="no such family"):
        predict(whole, 1e10, "mdm")

    # The driver died before it could book a cell, or someone removed its line: it is booked again, not trained again.
    cell = next(job for job in whole.jobs if job.cell)
    kept = [line for line in whole.ledger.path.read_text().splitlines() if cell.hash not in line or '"planned"' in line]
    whole.ledger.path.write_text("\n".join(kept) + "\n")
    before = (whole.folder / cell.folder / "metrics.jsonl").stat().st_mtime_ns
    assert run_campaign(whole, Quiet()) == 0
    assert whole.entries()[cell.hash].result["loss"] == entries[cell.hash].result["loss"]
    assert (whole.folder / cell.folder / "metrics.jsonl").stat().st_mtime_ns == before


def test_branch_is_the_run_with_the_whole_schedule(campaign_file):
    """A cell from a trunk ends with the weights of a run that had the schedule of the branch from its first step on."""
    path = campaign_file(wsd={"decay": 0.3, "warmup_steps": 2}, sizes=[{"layers": 1, "heads": 1, "width": 8}])
    campaign = open_campaign(path)
    root = campaign.folder
    for job in campaign.jobs:
        told = work(job, root, 1)
        assert told.state == DONE, told
    branch = max((job for job in campaign.jobs if job.cell), key=lambda job: job.steps)
    direct = open_campaign(path, [f"dir={root}-direct"])
    alone = next(job for job in jobs_of(direct.config, direct.grid) if job.hash == branch.hash)
    told = work(alone, root.with_name(f"{root.name}-direct"), 1)
    assert told.state == DONE
    a, b = tensors(root / branch.folder), tensors(direct.folder / alone.folder)
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)


def test_handing_on_twice_does_nothing(tmp_path):
    source = tmp_path / "trunk" / "step_000003"
    source.mkdir(parents=True)
    (source / "index.json").write_text("{}")
    for _ in range(2):
        hand_on(tmp_path / "trunk", tmp_path / "heir", 3)
    assert [p.name for p in (tmp_path / "heir").iterdir()] == ["step_000003"]
    assert (tmp_path / "heir" / "step_000003" / "index.json").read_text() == "{}"


def test_several_workers_a_cell_are_refused(campaign_file):
    with pytest.raises(ConfigError, match=r"launch.workers=2"):
        run_campaign(open_campaign(campaign_file(), ["set=[launch.workers=2]"]), Quiet())


def test_the_exit_code_says_that_cells_gave_no_result(campaign_file):
    campaign = open_campaign(campaign_file())
    campaign.ledger.plan(campaign.jobs)
    for job in campaign.jobs:
        campaign.ledger.write(DIVERGED, job, cause="loss is nan")
    assert run_campaign(campaign, Quiet()) == 1


@pytest.mark.parametrize("trunk", [True, False])
def test_a_loss_that_went_astray_is_no_result(campaign_file, trunk):
    """Also on a trunk: the branches would begin at the high loss, and their own curves would look sound."""
    campaign = open_campaign(campaign_file(wsd={"decay": 0.25}))
    job = next(one for one in campaign.jobs if (one.cell is None) == trunk)
    job = replace(job, run=with_schedule(job.run, job.run.train.schedule, 101))
    folder = campaign.folder / job.folder
    folder.mkdir(parents=True)
    curve = [2.0] + [4.1] * 100 + [math.nan]  # what is beyond the job's last step belongs to the next stretch
    rows = [{"kind": "train", "step": step, "loss": {"net": loss}} for step, loss in enumerate(curve, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = ended(job, campaign.folder, {"state": "complete"}, 0, 1.0)
    assert (told.state, told.again, told.wasted) == (DIVERGED, False, job.flops)
    assert not any((campaign.folder / heir).exists() for heir in job.heirs)
