from __future__ import annotations

import copy
import json

import pytest
import torch

from evaluation.benchmarks import bare_loop
from evaluation.benchmarks import trainer as bench
from evaluation.benchmarks.step_clock import StepClock, bouts
from generative.nets.transformer_config import TransformerConfig
from generative.randomness import Streams
from generative.training.config import ScheduleConfig
from generative.training.trainer import Trainer

TINY = bench.Settings(
    pairs=3,
    step_seconds=0.0,
    checkpoints=2,
    interval=3,
    network=TransformerConfig(layers=1, heads=2, width=16, ff_width=32, max_length=16),
    max_bytes=100_000,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return bench.Bench.prepare(TINY, tmp_path_factory.mktemp("bench"))


def test_the_bare_loop_takes_the_trainers_steps(prepared, monkeypatch):
    """Given the trainer's noise, the loop written by hand ends with the same weights: both do the same work."""
    constant = ScheduleConfig(name="constant", warmup_steps=0)
    config = prepared.config(4).model_copy(update={"schedule": constant})
    trainer = Trainer(prepared.method, config, 4, prepared.loader, prepared.backend)
    bare = bare_loop.BareLoop(
        copy.deepcopy(trainer.networks()["net"]), prepared.windows(4), prepared.method.mask_id, config
    )
    trainer.train()

    drawn = []
    for step in range(4):
        streams = Streams(config.seed).at(step).within("denoise")
        ids = torch.arange(step * prepared.batch_size, (step + 1) * prepared.batch_size)
        drawn += [streams.shared_uniform("time"), streams.uniform("mask", ids, (TINY.network.max_length,))]
    monkeypatch.setattr(bare_loop.torch, "rand", lambda *shape, device: drawn.pop(0))
    for _ in range(4):
        bare.step()

    assert not drawn
    theirs = dict(bare.net.named_parameters())
    for name, parameter in trainer.networks()["net"].named_parameters():
        assert torch.allclose(parameter, theirs[name], atol=1e-6), name


def test_steps_are_dealt_to_the_checkpoint_before_them():
    """Steps 1 .. 8 end at these times; checkpoints after steps 2 and 5 stall for 1 and 3 seconds."""
    clock = StepClock()
    clock.ends = [1.0, 2.0, 5.0, 7.0, 8.0, 13.0, 14.0, 15.0]
    clock.busy = [False, False, True, False, False, False, False, False]
    first, second = bouts(clock, {2: 1.0, 5: 3.0}, interval=3)
    # Step 3 follows the checkpoint and step 4 began while it was being written.
    assert (first.stall, first.writing, first.idle) == (1.0, [2.0, 2.0], [1.0])
    assert (second.stall, second.writing, second.idle) == (3.0, [2.0], [1.0, 1.0])
    assert first.fraction == pytest.approx(1.0 / 6.0)
    assert second.fraction == pytest.approx(3.0 / 7.0)


def test_a_tiny_run_gives_all_figures_and_writes_metrics(prepared):
    figures = prepared.overhead() | prepared.checkpoints()
    goals = {key: entry["goal"] for key, entry in figures.items()}
    # Steps this small may all fall into the writing of a checkpoint; then there is no slowdown to tell.
    assert goals.pop("checkpoint_write_slowdown", None) is None
    assert goals == {
        "overhead_ratio": "<= 1.03",
        "overhead_ratio_cpu_time": None,
        "checkpoint_stall_fraction": "< 0.02",
    }
    assert figures["overhead_ratio"]["n"] == TINY.pairs
    assert figures["checkpoint_stall_fraction"]["n"] == TINY.checkpoints
    assert "MB every 3 steps" in figures["checkpoint_stall_fraction"]["protocol"]
    lines = (prepared.folder / "overhead" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, TINY.pairs + bench.WARMUP + 1))
