"""The job script that goes to Slurm really trains, saves when its time is up, and goes on after the queue."""

from __future__ import annotations

import pytest

from tests.end_to_end.runs import CONFIG, QUIET, Run, write_text
from tests.end_to_end.slurm import FakeSlurm

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

NODES = ("cluster.nodes=2", "cluster.cpus_per_node=1", "cluster.gpus_per_node=0")


@pytest.mark.parametrize("launcher", ["ray", "torchrun"])
def test_script_trains_and_goes_on_after_its_time_was_up(tmp_path, launcher):
    write_text(tmp_path)
    (tmp_path / "bin").mkdir()
    cluster, run = FakeSlurm(tmp_path / "bin"), Run(tmp_path, tmp_path / "a run")
    data = (f"data.path={tmp_path}", f"data.cache={tmp_path}/cache", f"run.dir={run.folder}", *QUIET)
    told = cluster.submit(str(CONFIG), *data, "cluster=our-slurm", *NODES, f"cluster.launcher={launcher}")
    assert "4242" in told
    assert "scancel" in told

    cluster.finish(cluster.start(nodes=2), code=75, when=lambda: run.step() >= 15)
    stopped_at = run.step()
    assert 15 <= stopped_at < 120
    assert (run.folder / f"checkpoints/step_{stopped_at:06d}").is_dir()
    assert [line.split()[0] for line in cluster.requeued()] == ["requeue"]

    cluster.finish(cluster.start(nodes=2, restarts=1), code=0)
    assert run.read("outcome.json")["state"] == "complete"
    assert [line["step"] for line in run.lines("metrics.jsonl") if line["kind"] == "train"] == list(range(1, 121))
    assert len(cluster.requeued()) == 1
