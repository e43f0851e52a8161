"""A campaign on a local Ray cluster: workers are kept from cell to cell, and kill -9 of the driver loses no cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch.campaign.ledger import DONE
from launch.campaign.opened import open_campaign

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]


def start(path, log):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    words = [sys.executable, "-m", "launch.cli", "campaign", "run", path, "launch.backend=ray", "launch.slots=2"]
    with open(log, "ab") as file:
        return subprocess.Popen(words, env=environment, stdout=file, stderr=file, start_new_session=True)


def test_killed_and_given_again(campaign_file, tmp_path):
    path, log = campaign_file(budgets=[8e7, 1.6e8]), tmp_path / "log"
    campaign = open_campaign(path)
    first = start(path, log)
    try:
        deadline = time.monotonic() + 200
        while not any(entry.state == DONE for entry in campaign.entries().values()):
            assert first.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        finished = {key for key, entry in campaign.entries().items() if entry.state == DONE}
        assert start(path, log).wait(timeout=240) == 0, log.read_text()
    finally:
        if first.poll() is None:
            first.kill()
    entries = campaign.entries()
    assert {entry.state for entry in entries.values()} == {DONE}
    lines = [json.loads(line) for line in campaign.ledger.path.read_text().splitlines()]
    for key in finished:
        assert sum(line["job"] == key and line["kind"] == "running" for line in lines) == 1
    assert sum(line["kind"] == "done" for line in lines) == len(campaign.jobs)
