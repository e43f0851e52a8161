"""EDM's networks and tables against numbers of the released code (tests/golden/f_distill)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from generative.nets.edm_precond import denoising_weight, scalings
from tests.support.edm import GOLDEN, golden_network

NETS = ["song_ddpmpp", "dhariwal"]


def close(found, wanted, rtol=1e-4, atol=1e-5):
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NETS)
def test_names_and_shapes_are_the_released_ones(name):
    told = json.loads((GOLDEN / "configs.json").read_text())
    net = golden_network(name)
    ours = [[key, list(parameter.shape)] for key, parameter in sorted(net.named_parameters())]
    assert ours == told[f"{name}_sorted_params"]
    buffers = {key: list(buffer.shape) for key, buffer in net.named_buffers()}
    assert buffers == dict(told[f"{name}_buffers"])


@pytest.mark.parametrize("name", NETS)
def test_released_outputs(name):
    golden, net = load_file(GOLDEN / f"net_{name}.safetensors"), golden_network(name)
    x, sigma, labels = golden["in.x"], golden["in.sigma"], golden["in.labels"]
    x.requires_grad_()
    found = net(x, sigma, labels, golden.get("in.augment"))
    close(found, golden["out.D"])
    direction = torch.linspace(-1, 1, found.numel()).view(found.shape)
    (gradient,) = torch.autograd.grad((found * direction).sum(), x)
    close(gradient, golden["out.grad_x"], rtol=1e-3)
    with torch.no_grad():
        close(net(x, sigma), golden["out.D_nolabel"])
        wanted = [golden[f"out.feat{i}"] for i in range(2) if f"out.feat{i}" in golden]
        for feature, theirs in zip(net(x, sigma, labels, features=(0, 1), encoder_only=True), wanted, strict=False):
            close(feature, theirs)


def test_scalings():
    golden = np.load(GOLDEN / "edm_schedule.npz")
    sigma = torch.from_numpy(golden["sigma"])
    found = scalings(sigma, 0.5)
    for ours, theirs in zip(
        (found.skip, found.out, found.inner, found.noise), ("skip", "out", "in", "noise"), strict=True
    ):
        close(ours, torch.from_numpy(golden[f"c_{theirs}"]), rtol=1e-9, atol=1e-12)
    close(denoising_weight(sigma, 0.5), torch.from_numpy(golden["edm_weight"]), rtol=1e-9, atol=0)
