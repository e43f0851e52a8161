"""The formulas of `generative.training.memory` against what torch and DeepSpeed really hold, to the byte."""

from __future__ import annotations

import itertools
import pathlib

import pytest

from generative.training.memory import Layout, trained_bytes
from tests.distributed.held_states import Net
from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("held_states.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

CASES = {
    "none": [("fp32", "adamw", 1), ("fp32", "adamw", 2), ("fp32", "sgd", 1)],
    "fsdp": [*itertools.product(("fp32", "bf16"), ("adamw",), (1, 2)), ("fp32", "sgd", 1)],
    "zero1": [*itertools.product(("fp32", "bf16"), ("adamw",), (1, 2)), ("fp32", "sgd", 1)],
}
"""(precision, optimizer, micro-batches) by strategy."""


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["none", "ddp", "fsdp", "zero1", "zero2", "zero3"])
def test_states_are_predicted_to_the_byte(strategy, world):
    if (strategy == "none") != (world == 1) and strategy in ("none", "ddp"):
        pytest.skip("one process is plain, several are not")
    cases = CASES["none" if strategy == "ddp" else "zero1" if strategy.startswith("zero") else strategy]
    ranks = run_group(SCRIPT, world, {"cases": [(strategy, *case) for case in cases]})
    for rank, found in enumerate(ranks):
        told = [predicted(world, rank, strategy, *case) for case in cases]
        assert dict(zip(cases, told, strict=True)) == dict(zip(cases, found, strict=True)), f"rank {rank}"


def predicted(world, rank, strategy, precision, optimizer, micro_batches):
    shapes = [tuple(p.shape) for p in Net().parameters()]
    groups = [[s for s in shapes if len(s) > 1], [s for s in shapes if len(s) <= 1]]
    moments = 2 if optimizer == "adamw" else 1
    state = trained_bytes(groups, Layout(strategy, world, rank, precision, moments, micro_batches=micro_batches))
    return {"parameters": state.parameters, "gradients": state.gradients, "optimizer": state.optimizer}
