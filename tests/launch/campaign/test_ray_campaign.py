"""A campaign on a local Ray cluster: workers are kept from cell to cell, and kill -9 of the driver loses no cell."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest

from generative.training.checkpoint.rotation import complete_steps
from generative.training.runfolder import read_lines
from launch.campaign.ledger import DONE
from launch.campaign.opened import open_campaign
from launch.campaign.running import run_campaign
from launch.console import Console
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
    path = campaign_file(budgets=[8e7, 1e9], set=["train.checkpoint.every_steps=50"])
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
        told = " ".join(one["message"] for one in read_lines(campaign.folder / job.folder / "events.jsonl"))
        found = re.search(r"start 2 of this job: from step (\d+),", told)
        assert found, told
        assert int(found[1]) >= step  # a worker may have saved once more before it was gone


def test_cells_of_several_workers(campaign_file, start, tmp_path):
    """The same losses as with one, in this process: results do not depend on how many workers there are."""
    changes = {"sizes": [{"layers": 1, "heads": 1, "width": 8}], "budgets": [4e7]}
    set_workers = ["train.threads=1", "launch.workers=2"]
    led = campaign_file("led.yaml", set=set_workers, dir=str(tmp_path / "led"), **changes)
    process = start(led)
    assert process.wait(timeout=240) == 0, process.said()
    alone = campaign_file("alone.yaml", set=set_workers[:1], dir=str(tmp_path / "alone"), **changes)
    assert run_campaign(open_campaign(alone, ["launch.backend=local"]), Console()) == 0
    losses = [
        [entry.result["loss"] for entry in open_campaign(path).entries().values() if entry.result]
        for path in (led, alone)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(losses[0]) == 1
