"""Spectral normalisation against torch's old form, with iterations that several forward passes share."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from generative.nets.recomputation import recomputed
from generative.nets.spectral_norm import Conv2d, Linear

KINDS = ["conv", "linear"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(kind: str) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """Ours, torch's with the same state, and an input; float64."""
    if kind == "conv":
        ours, theirs, x = Conv2d(3, 5, 4, stride=2, padding=1), nn.Conv2d(3, 5, 4, 2, 1), normal(2, 3, 8, 8)
    else:
        ours, theirs, x = Linear(7, 5), nn.Linear(7, 5), normal(4, 7)
    theirs = spectral_norm(theirs.double())
    ours = ours.double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, x


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_torch_over_several_forwards_before_one_backward(kind):
    ours, theirs, x = make(kind)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    for step in range(3):
        x = x + normal(*x.shape, seed=step + 1)
        mine, other = ([layer(x * k) for k in (1, 2)] for layer in (ours, theirs))
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-13)
        for layer, values in ((ours, mine), (theirs, other)):
            layer.zero_grad()
            sum((value**3).sum() for value in values).backward()
        torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=1e-12, atol=1e-13)
    ours.eval(), theirs.eval()
    before = ours.weight_u.clone()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-13)
    assert torch.equal(ours.weight_u, before)


@pytest.mark.parametrize("kind", KINDS)
def test_forwards_of_one_update_share_an_iteration(kind):
    layer, _, x = make(kind)
    first = layer(x)
    vectors = layer.weight_u.clone(), layer.weight_v.clone()
    assert torch.equal(layer(x, iterate=False), first)
    with torch.no_grad():
        assert torch.equal(layer(x, iterate=False), first)
    assert torch.equal(layer.weight_u, vectors[0])
    assert torch.equal(layer.weight_v, vectors[1])
    layer(x)
    assert not torch.equal(layer.weight_u, vectors[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_their_gradients(kind):
    layer, _, x = make(kind)
    call = lambda x, w: torch.func.functional_call(layer, {"weight_orig": w}, (x, False))  # noqa: E731
    inputs = (x[:1].clone().requires_grad_(True), layer.weight_orig.detach().clone().requires_grad_(True))
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_ends_up_with_norm_one(kind):
    layer, _, x = make(kind)
    with torch.no_grad():  # the iteration gains (second / first singular value)^2 a step: they shall not be neighbours
        u, values, v = torch.linalg.svd(layer.weight_orig.flatten(1), full_matrices=False)
        values[0] *= 1.25
        layer.weight_orig.copy_((u * values @ v).view_as(layer.weight_orig))
    for _ in range(200):
        layer(x)
    top = torch.linalg.matrix_norm(layer.normed(iterate=False).flatten(1), ord=2)
    torch.testing.assert_close(top, torch.ones_like(top), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputation_sees_the_vectors_of_its_forward(kind):
    """Two forwards with an iteration each, recomputed after both: as if nothing had been recomputed."""
    (plain, _, x), (again, _, _) = make(kind), make(kind)
    again.load_state_dict(plain.state_dict())
    for layer, wanted in ((plain, False), (again, True)):
        y = [recomputed(wanted, layer, (x * k).requires_grad_(True)) for k in (1, 2)]
        sum((value**3).sum() for value in y).backward()
    assert torch.equal(plain.weight_orig.grad, again.weight_orig.grad)
    torch.testing.assert_close(dict(again.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)


def test_vectors_stay_in_single_precision():
    layer = Linear(300, 20)
    before = layer.weight_u.clone()
    layer.bfloat16()
    assert torch.equal(layer.weight_u, before)
    assert layer(torch.ones(2, 300, dtype=torch.bfloat16)).dtype == torch.bfloat16
    other = Linear(300, 20)
    other.load_state_dict({name: tensor.float() for name, tensor in layer.state_dict().items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other.eval()(torch.ones(2, 300))
        sigma = other.raw[0, 0] / other.normed(False)[0, 0]
    torch.testing.assert_close(sigma, other.weight_u @ other.raw @ other.weight_v)


def test_without_normalisation_a_plain_layer():
    layer, x = Linear(4, 3, spectral=False), normal(2, 4).float()
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
