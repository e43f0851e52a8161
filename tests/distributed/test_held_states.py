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

RECIPES = [*itertools.product(("fp32", "bf16"), ("adamw",), (1, 2)), ("fp32", "sgd", 1)]
"""(precision, optimizer, micro-batches)."""

WHOLE = [("fp32", "adamw", 1), ("fp32", "adamw", 2), ("fp32", "sgd", 1)]
"""Without shards precision changes nothing: bf16 is autocast over fp32 weights."""


def cases(*strategies):
    return [(s, *recipe) for s in strategies for recipe in (WHOLE if s in ("none", "ddp") else RECIPES)]


@pytest.mark.parametrize(
    ("world", "chosen"),
    [
        (1, cases("none", "fsdp")),
        (1, cases("zero1", "zero2", "zero3")),
        (2, cases("ddp", "fsdp")),
        (2, cases("zero1", "zero2", "zero3")),
        (3, cases("fsdp", "zero2", "zero3")),
    ],
)
def test_states_are_predicted_to_the_byte(world, chosen):
    ranks = run_group(SCRIPT, world, {"cases": chosen})
    for rank, found in enumerate(ranks):
        told = [predicted(world, rank, *case) for case in chosen]
        assert dict(zip(chosen, told, strict=True)) == dict(zip(chosen, found, strict=True)), f"rank {rank}"


def predicted(world, rank, strategy, precision, optimizer, micro_batches):
    shapes = [tuple(p.shape) for p in Net().parameters()]
    groups = [[s for s in shapes if len(s) > 1], [s for s in shapes if len(s) <= 1]]
    moments = 2 if optimizer == "adamw" else 1
    state = trained_bytes(groups, Layout(strategy, world, rank, precision, moments, micro_batches=micro_batches))
    return {"parameters": state.parameters, "gradients": state.gradients, "optimizer": state.optimizer}
