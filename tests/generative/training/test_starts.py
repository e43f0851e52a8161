"""Frozen networks that come from another run stay what they were, whatever becomes of that run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch

from generative.errors import CheckpointError, ConfigError
from generative.method import Batch, Context, Loss, NetworkSpec, Update
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.networks import check_networks
from generative.training.starts import copied_by_frozen, from_outside, origins
from generative.training.trainer import Trainer
from tests.support.toys import Net, Regression, loaders


@dataclass(frozen=True)
class Taught(Regression):
    """Least squares, held near a frozen teacher from another run."""

    teacher: str = ""

    def networks(self) -> Mapping[str, NetworkSpec]:
        return {"teacher": NetworkSpec(Net, trainable=False, init_from=self.teacher), **super().networks()}

    def loss(self, update: Update, nets, batch: Batch, context: Context) -> Loss:
        apart = (nets["net"](batch["x"]) - nets["teacher"](batch["x"])).square()
        return Loss(super().loss(update, nets, batch, context).value + (apart * batch["valid"]).sum())


def train(method, folder, steps=6, stop_at=None):
    settings = TrainConfig.model_validate(
        {"steps": steps, "batch_size": 6, "optimizer": {"lr": 0.05}, "checkpoint": {"every_steps": None}}
    )
    store = CheckpointStore(folder / "checkpoints", keep_last=1)
    trainer = Trainer(method, settings, steps, loaders(), Backend(), store)
    trainer._stop = lambda: trainer.step == stop_at
    trainer.train()
    return trainer


def state(trainer):
    return torch.cat(
        [tensor.double().flatten() for m in trainer.networks().values() for tensor in m.state_dict().values()]
    )


@pytest.fixture
def taught(tmp_path):
    """A method whose teacher is a run that stands at step 2 of more."""
    train(Regression(noise=0.0), tmp_path / "teacher", steps=2)
    return Taught(teacher=f"{tmp_path / 'teacher'}#net")


@pytest.mark.parametrize("fate", ["goes on", "is gone"])
def test_the_teacher_is_that_of_the_start_whatever_becomes_of_its_run(tmp_path, taught, fate):
    straight = train(taught, tmp_path / "straight")
    first = train(taught, tmp_path / "run", stop_at=3)
    if fate == "goes on":
        train(Regression(noise=0.0), tmp_path / "teacher", steps=9)  # keeps its newest checkpoint alone
        assert not (tmp_path / "teacher/checkpoints/step_000002").exists()
    else:
        shutil.rmtree(tmp_path / "teacher")
    second = train(taught, tmp_path / "run")
    assert second.step == 6
    assert torch.equal(state(second), state(straight))
    assert second.sources == first.sources
    assert "teacher/checkpoints/step_000002#net" in second.sources["teacher"]


def test_what_a_start_without_a_checkpoint_left_is_not_taken_for_the_teacher(tmp_path, taught):
    train(taught, tmp_path / "run", stop_at=1)
    shutil.rmtree(tmp_path / "run/checkpoints/step_000001")
    train(Regression(noise=0.0), tmp_path / "teacher", steps=9)
    assert torch.equal(state(train(taught, tmp_path / "run")), state(train(taught, tmp_path / "fresh")))


def test_a_damaged_copy_is_told(tmp_path, taught):
    train(taught, tmp_path / "run", stop_at=3)
    (file,) = (tmp_path / "run/checkpoints/sources/teacher/step_000000").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"sources/teacher.*have changed"):
        train(taught, tmp_path / "run")


def test_copies_are_made_of_nothing_that_the_seed_or_the_checkpoint_gives_again(tmp_path):
    train(Regression(), tmp_path / "a", steps=2)
    train(
        Taught(teacher="network:net"),
        tmp_path / "run",
        steps=2,
    )
    assert not (tmp_path / "run/checkpoints/sources").exists()


def test_chains_of_starts(tmp_path):
    fresh, outside = NetworkSpec(Net), NetworkSpec(Net, init_from="runs/a")
    frozen = NetworkSpec(Net, trainable=False, init_from="network:net")
    config = TrainConfig(steps=1)
    assert origins("first", {"first": frozen, "net": fresh}, config) == ["network:net"]
    assert origins("first", {"first": frozen, "net": outside}, config) == ["network:net", "runs/a"]
    assert not from_outside("first", {"first": frozen, "net": fresh}, config)
    assert from_outside("first", {"first": frozen, "net": outside}, config)
    assert copied_by_frozen({"first": frozen, "net": outside}, config) == {"net"}
    assert copied_by_frozen({"first": frozen, "net": outside}, config, kept=["first"]) == set()
    with pytest.raises(ConfigError, match="starts from itself"):
        origins("net", {"net": NetworkSpec(Net, init_from="network:net")}, config)


def test_a_resumed_run_is_not_asked_for_its_sources(taught, tmp_path):
    shutil.rmtree(tmp_path / "teacher")
    modules = {name: spec.build() for name, spec in taught.networks().items()}
    check_networks(taught, TrainConfig(steps=3), modules, resumed=True)
    with pytest.raises(CheckpointError, match="no such folder"):
        check_networks(taught, TrainConfig(steps=3), modules)
