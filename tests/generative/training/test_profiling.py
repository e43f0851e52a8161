from __future__ import annotations

import gzip
import json
import re
import shutil
from types import SimpleNamespace

import pytest

from generative.errors import ConfigError, RunFolderError
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import ProfileConfig, TrainConfig
from generative.training.hooks import Hook
from generative.training.profiling import STEP, ProfileHook, cost_table
from generative.training.trainer import Trainer
from launch.schema import load_run_config
from tests.end_to_end.runs import CONFIG
from tests.support.toys import Regression, loaders


class Between(Hook):
    """Computes something between steps, as a validation does."""

    def on_step(self, trainer, record):
        import torch

        torch.linalg.det(torch.eye(3))


def train(folder, chosen, stop_after=None, poison=None, **profile):
    """Eight steps of the toy; its events."""
    settings = TrainConfig.model_validate(
        {"steps": 8, "batch_size": 6, "anomaly": {"policy": "rollback"}, "checkpoint": {"every_steps": 2}}
    )
    events = []

    class Tell(Hook):
        def on_event(self, trainer, kind, message):
            events.append((kind, message))

    hook = ProfileHook(ProfileConfig.model_validate({"steps": chosen} | profile), folder)
    hooks = [hook, Between(), Tell(), hook.opener]
    store = CheckpointStore(folder / "checkpoints")
    trainer = Trainer(Regression(poison=poison), settings, 8, loaders(), Backend(), store, hooks, lambda: False)
    trainer._stop = lambda: trainer.step == stop_after
    trainer.train()
    return events


def names(folder, ending=".json.gz"):
    return sorted(path.name.removesuffix(ending) for path in (folder / "profile").glob(f"*{ending}"))


def trace(folder, name):
    with gzip.open(folder / "profile" / f"{name}.json.gz") as file:
        return [event["name"] for event in json.load(file)["traceEvents"] if "name" in event]


def marks(folder, name):
    return sorted({mark for mark in trace(folder, name) if mark.startswith(STEP)})


def test_chosen_steps_are_traced_and_no_others(tmp_path):
    events = train(tmp_path, "3-5,8")
    assert names(tmp_path) == ["step_000003-000005_rank0", "step_000008_rank0"]
    assert marks(tmp_path, "step_000003-000005_rank0") == [f"{STEP}{i}" for i in (3, 4, 5)]
    found = trace(tmp_path, "step_000008_rank0")
    assert any("addmm" in name for name in found)
    assert any("AdamW" in name for name in found)
    assert not any("linalg_det" in name for name in found)
    assert any("linalg_det" in name for name in trace(tmp_path, "step_000003-000005_rank0"))  # between its steps
    assert [kind for kind, _ in events] == ["note", "note"]
    assert "step_000008_rank0.json.gz" in events[1][1]


def test_the_table_has_the_most_costly_operations(tmp_path):
    train(tmp_path, "2", memory=True)
    text = (tmp_path / "profile" / "step_000002_rank0.txt").read_text().splitlines()
    assert text[0].startswith("own CPU time of the 10 most costly operations, 1 step(s)")
    assert "MB a step" in text[1]
    assert len(text) == 2 + 10
    times = [float(re.search(r"  ([0-9.]+)  +[0-9.]+ %", line)[1]) for line in text[2:]]
    assert times == sorted(times, reverse=True)
    assert times[0] > 0


def operation(key, cpu, device=0.0, count=2):
    return SimpleNamespace(
        key=key,
        count=count,
        self_cpu_time_total=cpu,
        self_device_time_total=device,
        self_cpu_memory_usage=4e6,
        self_device_memory_usage=6e6,
    )


def test_shares_are_of_all_operations_and_of_the_gpu_where_there_is_one():
    cpu = cost_table([operation("a", 1000), operation("b", 3000), operation(f"{STEP}3", 9000)], 2).splitlines()
    assert cpu[0].endswith("2 step(s), 2.0 ms a step")
    assert [line.split() for line in cpu[2:]] == [["b", "1.500", "75.0", "%", "1"], ["a", "0.500", "25.0", "%", "1"]]
    gpu = cost_table([operation("a", 1000, 500), operation("b", 3000)], 1, memory=True).splitlines()
    assert gpu[0].startswith("own GPU time")
    assert gpu[2].split() == ["a", "0.500", "100.0", "%", "2", "6.00"]


def test_what_is_there_is_never_replaced(tmp_path):
    train(tmp_path, "2-3")
    first = (tmp_path / "profile" / "step_000002-000003_rank0.json.gz").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")  # the run begins again
    train(tmp_path, "2-3")
    assert names(tmp_path) == ["step_000002-000003_rank0", "step_000002-000003_rank0.2"]
    assert (tmp_path / "profile" / "step_000002-000003_rank0.json.gz").read_bytes() == first
    assert names(tmp_path, ".txt") == names(tmp_path)


def test_an_interrupted_range_is_kept_and_goes_on(tmp_path):
    train(tmp_path, "2-5", stop_after=3)
    train(tmp_path, "2-5")
    assert names(tmp_path) == ["step_000002-000003_rank0", "step_000004-000005_rank0"]


def test_steps_that_are_rolled_back_are_traced_when_they_are_taken_again(tmp_path):
    events = train(tmp_path, "3-6", poison=20)  # step 4 is bad: back to step 2
    assert [kind for kind, _ in events] == ["anomaly", "rollback", "note"]
    assert names(tmp_path) == ["step_000004-000006_rank0"]


def test_only_the_chosen_ranks_trace(tmp_path):
    train(tmp_path, "2", ranks=[1, 3])
    assert not (tmp_path / "profile").exists()
    train(tmp_path / "all", "2", ranks=None)
    assert names(tmp_path / "all") == ["step_000002_rank0"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "profile").write_text("in the way")
    with pytest.raises(RunFolderError, match="profile of steps 2 to 2"):
        train(tmp_path, "2")


@pytest.mark.parametrize(
    ("given", "steps"), [("10-12", [10, 11, 12]), ("7, 3-4", [3, 4, 7]), ([5, 2], [2, 5]), (9, [9]), (None, [])]
)
def test_steps_can_be_written_in_several_ways(given, steps):
    assert ProfileConfig.model_validate({"steps": given}).chosen() == steps


@pytest.mark.parametrize("given", ["0", "5-3", "a", "1-", "[0]", "-3", "1,,2"])
def test_steps_that_are_none_are_refused(given):
    with pytest.raises(ConfigError) as caught:
        load_run_config(str(CONFIG), [f"train.profile.steps={given}"])
    assert "train.profile.steps" in caught.value.problem
    assert "10-12" in caught.value.expected
