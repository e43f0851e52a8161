"""A campaign on a local Ray cluster: workers are kept from cell to cell, and kill -9 of the driver loses no cell."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from generative.training.checkpoint.rotation import complete_steps
from generative.training.runfolder import read_lines
from launch.campaign.ledger import DONE
from launch.campaign.opened import open_campaign
from tests.support.forked import Forked

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]


@pytest.fixture
def start():
    """Gives the campaign again, as a process of its own."""
    begun = []

    def start(path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        words = ["-m", "launch.cli", "campaign", "run", path, "launch.backend=ray", "launch.slots=2"]
        begun.append(Forked(words, environment))
        return begun[-1]

    yield start
    for process in begun:
        process.close()


def begun(campaign):
    """(job, newest checkpoint) of jobs that have saved something and are not done."""
    entries = campaign.entries()
    saved = [
        (job, max(complete_steps(campaign.folder / job.folder / "checkpoints"), default=0)) for job in campaign.jobs
    ]
    return [(job, step) for job, step in saved if 0 < step < job.steps and entries[job.hash].state != DONE]


def test_killed_and_given_again(campaign_file, start):
    path = campaign_file(budgets=[8e7, 4e9])
    campaign = open_campaign(path)
    first = start(path)
    deadline = time.monotonic() + 200
    while not (begun(campaign) and any(entry.state == DONE for entry in campaign.entries().values())):
        assert first.poll() is None, first.said()
        assert time.monotonic() < deadline, first.said()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    finished = {key for key, entry in campaign.entries().items() if entry.state == DONE}
    halfway = begun(campaign)
    assert halfway, "the job that was to be cut off had ended by then"
    again = start(path)
    assert again.wait(timeout=240) == 0, again.said()
    entries = campaign.entries()
    assert {entry.state for entry in entries.values()} == {DONE}
    lines = [json.loads(line) for line in campaign.ledger.path.read_text().splitlines()]
    for key in finished:
        assert sum(line["job"] == key and line["kind"] == "running" for line in lines) == 1
    assert sum(line["kind"] == "done" for line in lines) == len(campaign.jobs)
    for job, step in halfway:  # from its own checkpoint, not from the beginning
        starts = [one["message"] for one in read_lines(campaign.folder / job.folder / "events.jsonl")]
        assert any(f"from step {step}," in text for text in starts), starts


def test_cells_of_several_workers(campaign_file, start, tmp_path):
    """The same losses as with one: results do not depend on how many workers there are."""
    one_size = [{"layers": 1, "heads": 1, "width": 8}]
    wsd = {"decay": 0.25, "warmup_steps": 2}
    found = {}
    for workers in (2, 1):
        settings = {"set": [f"launch.workers={workers}", "train.threads=1"], "dir": str(tmp_path / f"by_{workers}")}
        path = campaign_file(f"by_{workers}.yaml", sizes=one_size, budgets=[4e7], wsd=wsd, **settings)
        process = start(path)
        assert process.wait(timeout=200) == 0, process.said()
        (done,) = [entry for entry in open_campaign(path).entries().values() if entry.result]
        found[workers] = done.result["loss"]
    assert found[2] == pytest.approx(found[1], rel=1e-5)
