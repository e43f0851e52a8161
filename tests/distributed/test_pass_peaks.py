"""Activations and buffers told by the plan against the allocations of real passes under each strategy."""

from __future__ import annotations

import pathlib

import pytest
import torch

from generative.training.activations import FakeRun
from generative.training.memory import Layout, trained_bytes
from launch.plan_networks import gathered_parts
from tests.distributed.pass_peaks import batch, method
from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("pass_peaks.py")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


CASES = [("ddp", "bf16"), ("fsdp", "fp32"), ("fsdp", "bf16"), ("zero2", "bf16"), ("zero3", "fp32")]


def test_peaks_of_passes_are_told_within_fifteen_percent():
    real = run_group(SCRIPT, 2, {"cases": CASES}, timeout=150)[0]
    ratios = {case: told(*case) / peak for case, peak in zip(CASES, real, strict=True)}
    assert all(0.85 < ratio < 1.15 for ratio in ratios.values()), ratios


def told(strategy, precision):
    with torch.device("meta"):
        net = method().networks()["net"].build()
    shapes = [tuple(p.shape) for p in net.parameters()]
    groups = [[s for s in shapes if len(s) > 1], [s for s in shapes if len(s) <= 1]]
    state = trained_bytes(groups, Layout(strategy, 2, precision=precision), gathered_parts(net))
    numerics = "fp32" if precision == "fp32" else "autocast" if strategy == "ddp" else "bf16"
    (activations,) = FakeRun(method(), numerics).activation_bytes(batch()).values()
    return activations + state.buffers
