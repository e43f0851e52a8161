"""Bytes by shapes: closed forms here, real processes in tests/distributed/test_held_states.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.training.communication import frozen_sent_bytes, sent_bytes
from generative.training.memory import BUCKET_ELEMENTS, LIVE_ELEMENTS, Layout, count, frozen_bytes, trained_bytes

GROUPS = [[(1000, 64), (64, 1000)], [(64,), (64,)]]
N = 2 * 64_000 + 128
PARTS = ("parameters", "gradients", "optimizer", "ema")


def parts(groups, layout):
    state = trained_bytes(groups, layout)
    return {name: getattr(state, name) for name in PARTS}


def test_a_whole_network_takes_sixteen_bytes_a_parameter_and_four_for_each_average():
    state = parts(GROUPS, Layout("none", averages=2))
    assert state == {"parameters": 4 * N, "gradients": 4 * N, "optimizer": 8 * N + 4 * 4, "ema": 8 * N}
    assert parts(GROUPS, Layout("ddp", world=8, precision="bf16", averages=2)) == state
    assert parts(GROUPS, Layout("none", moments=1))["optimizer"] == 4 * N
    assert parts(GROUPS, Layout("none", moments=0))["optimizer"] == 0


@pytest.mark.parametrize(
    ("strategy", "precision", "expected"),
    [
        # bytes of parameters, gradients, optimizer for each of N / 8 = 16,016 elements, all of which divide
        ("fsdp", "fp32", (4, 4, 8)),
        ("fsdp", "bf16", (4, 4, 8)),
        ("zero1", "fp32", (32, None, 12)),
        ("zero2", "bf16", (16, None, 12)),
        ("zero3", "fp32", (4, 4, 12)),
        ("zero3", "bf16", (2, 2, 12)),
    ],
)
def test_shards_are_an_eighth_on_eight_ranks(strategy, precision, expected):
    state = parts(GROUPS, Layout(strategy, 8, precision=precision, averages=1))
    steps = 4 * 4 if strategy == "fsdp" else 4 * 2  # one count for each tensor that the optimizer steps on
    for name, size, extra in zip(PARTS, (*expected, 4), (0, 0, steps, 0), strict=True):
        assert size is None or state[name] == size * N / 8 + extra


def test_zero_keeps_whole_gradients_of_what_its_interval_touches():
    """The first of 8 intervals lies in the first matrix of 64,000; that of the vectors ends within the first of 64."""
    assert trained_bytes(GROUPS, Layout("zero2", 8)).gradients == 4 * (64_000 + 64)
    assert trained_bytes(GROUPS, Layout("zero1", 8)).gradients == 4 * (64_000 + 64)
    assert trained_bytes(GROUPS, Layout("zero1", 8, micro_batches=2)).gradients == 4 * N


def test_fsdp_keeps_whole_gradients_between_micro_batches():
    assert trained_bytes(GROUPS, Layout("fsdp", 8, micro_batches=2)).gradients == 4 * N


def test_buffers_of_deepspeed_are_as_large_as_the_network_at_most():
    assert trained_bytes(GROUPS, Layout("zero2", 2)).buffers == 4 * N
    assert trained_bytes(GROUPS, Layout("zero2", 2, precision="bf16", cuda=True)).buffers == 2 * 2 * N
    huge = [[(3 * LIVE_ELEMENTS, 1)]]
    gathered = trained_bytes(huge, Layout("zero3", 2)).buffers - 4 * BUCKET_ELEMENTS
    assert gathered == 4 * LIVE_ELEMENTS


def test_frozen_networks_hold_weights_alone():
    shapes = [shape for group in GROUPS for shape in group]
    whole = frozen_bytes(shapes, Layout("none", 8))
    assert (whole.device, whole.parameters) == (4 * N, 4 * N)
    assert frozen_bytes(shapes, Layout("zero3", 8, precision="bf16")).parameters == 2 * N / 8
    sharded = frozen_bytes(shapes, Layout("fsdp", 8), gathered=[0, N])
    assert sharded.parameters == 4 * N / 8
    assert sharded.buffers > 0


@pytest.mark.parametrize("strategy", ["fsdp", "zero1", "zero2", "zero3"])
def test_offloading_moves_the_optimizer_to_the_host_and_loses_nothing(strategy):
    on = Layout(strategy, 4, precision="bf16", averages=1, cuda=True)
    off = Layout(strategy, 4, precision="bf16", averages=1, cuda=True, offload=True)
    before, after = trained_bytes(GROUPS, on), trained_bytes(GROUPS, off)
    assert after.optimizer == after.ema == after.gradients == 0
    assert after.host >= before.optimizer + before.ema
    assert (after.parameters == 0) == (strategy in ("fsdp", "zero3"))
    assert after.device < before.device


SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), min_size=1, max_size=6)


@given(
    SHAPES.filter(lambda shapes: all(shapes)), st.integers(1, 7), st.sampled_from(["fsdp", "zero1", "zero2", "zero3"])
)
def test_ranks_together_average_every_parameter_exactly_once(shapes, world, strategy):
    """Padding is nobody's: the averages of all ranks are the network's."""
    layouts = [Layout(strategy, world, rank, averages=1) for rank in range(world)]
    assert sum(trained_bytes([shapes], layout).ema for layout in layouts) == 4 * count(shapes)


@given(
    SHAPES.filter(lambda shapes: all(shapes)), st.integers(1, 7), st.sampled_from(["fsdp", "zero1", "zero2", "zero3"])
)
def test_rank_0_holds_the_most(shapes, world, strategy):
    held = [parts([shapes], Layout(strategy, world, rank, averages=1)) for rank in range(world)]
    for name in ("parameters", "optimizer", "ema"):
        assert held[0][name] == max(part[name] for part in held)


@pytest.mark.parametrize(
    ("strategy", "precision", "passes", "per_element"),
    [
        ("none", "fp32", 1, 0),
        ("ddp", "fp32", 3, 8),
        ("ddp", "bf16", 3, 8),
        ("zero1", "bf16", 3, 4),
        ("zero2", "bf16", 3, 8),
        ("zero3", "fp32", 2, 24),
        ("fsdp", "fp32", 1, 12),
        ("fsdp", "bf16", 2, 12),
    ],
)
def test_a_rank_sends_what_the_ring_algorithms_say(strategy, precision, passes, per_element):
    layout = Layout(strategy, 4, precision=precision, micro_batches=passes)
    assert sent_bytes(1000, layout) == 1000 * per_element * 3 / 4
    assert sent_bytes(1000, Layout(strategy, 1)) == 0


def test_the_root_of_fsdp_is_gathered_once():
    layout = Layout("fsdp", 4)
    assert sent_bytes(1000, layout) - sent_bytes(1000, layout, gathered=[200, 400, 400]) == 4 * 200 * 3 / 4


def test_a_frozen_network_is_sent_only_where_it_is_sharded():
    assert frozen_sent_bytes(1000, Layout("none", 4)) == 0
    assert frozen_sent_bytes(1000, Layout("zero3", 4, precision="bf16", micro_batches=2)) == 1000 * 2 * 2 * 3 / 4
