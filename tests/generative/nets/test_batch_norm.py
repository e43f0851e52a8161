"""Batch normalisation in one process: against torch's, with padding rows, and standing statistics."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from generative.errors import ConfigError
from generative.method import Alone
from generative.nets.batch_norm import BatchNorm, counted_rows
from generative.nets.mlp_gan import MlpGenerator
from generative.nets.recomputation import recomputed
from generative.nets.standing import standing_statistics, wearing
from generative.randomness import Streams

SHAPES = [(6, 3), (6, 3, 5), (4, 3, 4, 2)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pair(shape: tuple[int, ...]) -> tuple[BatchNorm, nn.Module]:
    """Ours and torch's with the same weights, in float64."""
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    ours, theirs = BatchNorm(shape[1]).double(), kind(shape[1]).double()
    with torch.no_grad():
        ours.weight.copy_(normal(shape[1], seed=1))
        ours.bias.copy_(normal(shape[1], seed=2))
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def passes(layer: nn.Module, x: torch.Tensor, *rows: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients of a weighted sum of its squares; rows that are not valid weigh nothing."""
    x = x.clone().requires_grad_(True)
    y = layer(x, *rows)
    weight = rows[0].double().view(-1, *[1] * (x.ndim - 1)) if rows else 1.0
    loss = (y.square() * normal(*x.shape, seed=3) * weight).sum()
    return [y, *torch.autograd.grad(loss, [x, layer.weight, layer.bias])]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("masked", [False, True], ids=["fused", "weighted"])
def test_equal_to_torch_over_three_steps_and_in_evaluation(shape, masked):
    ours, theirs = pair(shape)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for step in range(3):
        x = 2 * normal(*shape, seed=10 + step) + 1
        rows = (torch.ones(len(x), dtype=torch.bool),) if masked else ()
        for mine, other in zip(passes(ours, x, *rows), passes(theirs, x), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-14)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_rows_weigh_nothing(shape):
    ours, theirs = pair(shape)
    x = normal(*shape)
    valid = torch.arange(len(x)) % 3 != 1
    x[~valid] = 1e3
    found, expected = passes(ours, x, valid), passes(theirs, x[valid])
    torch.testing.assert_close(found[0][valid], expected[0])
    assert not found[1][~valid].any()
    weight = normal(*x.shape, seed=3)[valid]
    again = x[valid].clone().requires_grad_(True)
    theirs.load_state_dict(pair(shape)[0].state_dict())
    gradients = torch.autograd.grad((theirs(again).square() * weight).sum(), [again, theirs.weight, theirs.bias])
    for mine, other in zip([found[1][valid], *found[2:]], gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-14)


def test_gradients_of_the_weighted_form_and_their_gradients():
    layer = BatchNorm(2).double()
    valid = torch.tensor([True, True, False, True])
    call = lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (x, valid))  # noqa: E731
    inputs = [tensor.requires_grad_(True) for tensor in (normal(4, 2, 2), normal(2, seed=1), normal(2, seed=2))]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_no_cancellation_in_single_precision():
    """Mean 3000, deviation 0.05: sums of squares in fp32 would lose the variance altogether."""
    x = (3000 + 0.05 * normal(64, 2, 8)).float()
    rows = torch.ones(64, dtype=torch.bool)
    exact = (x.double() - x.double().mean((0, 2), keepdim=True)) / x.double().std((0, 2), correction=0, keepdim=True)
    layer = BatchNorm(2, eps=1e-12)
    assert (
        layer(x, rows) - exact
    ).abs().max() < 1e-2  # two units in the last place of the mean: fp32 resolves 3000 to 0.00024
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.double().var((0, 2)).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("masked", [False, True], ids=["fused", "weighted"])
def test_statistics_stay_in_single_precision(masked):
    x = (10 + normal(64, 3)).bfloat16()
    rows = (torch.ones(64, dtype=torch.bool),) if masked else ()
    layer, cast = BatchNorm(3), BatchNorm(3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, *rows)
    assert y.dtype == torch.bfloat16
    assert cast(x, *rows).dtype == torch.bfloat16
    assert cast.weight.dtype == torch.bfloat16
    for found in (layer, cast):
        assert found.running_mean.dtype == torch.float32
        torch.testing.assert_close(found.running_mean, 0.1 * x.float().mean(0), rtol=1e-5, atol=1e-6)
        assert found.eval()(x).dtype == torch.bfloat16


def test_one_value_a_channel_has_no_variance():
    with pytest.raises(ConfigError, match="batch of 1"):
        BatchNorm(3)(torch.zeros(1, 3))
    assert BatchNorm(3)(torch.zeros(1, 3, 2)).shape == (1, 3, 2)
    assert BatchNorm(3).eval()(torch.zeros(1, 3)).shape == (1, 3)


def test_counted_rows():
    assert counted_rows(None) is None
    assert counted_rows(torch.tensor([True, True])) is None
    mask = torch.tensor([True, False])
    assert counted_rows(mask) is mask


def test_recomputation_leaves_the_statistics():
    once, twice = BatchNorm(3), BatchNorm(3)
    x = normal(8, 3, dtype=torch.float32).requires_grad_(True)
    (expected,) = torch.autograd.grad(once(x).pow(3).sum(), x)
    for rows in ((), (torch.ones(8, dtype=torch.bool),)):
        layer = twice if not rows else BatchNorm(3)
        (found,) = torch.autograd.grad(recomputed(True, layer, x, *rows).pow(3).sum(), x)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(layer.state_dict(), once.state_dict())


# ---------------------------------------------------------------------- standing statistics


class Part(Alone):
    """One rank's view of a group whose others have been heard already."""

    def __init__(self, rank: int, world: int, heard: dict[int, torch.Tensor]) -> None:
        self.rank, self.world, self.heard = rank, world, heard

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self.heard[self.rank] = tensor
        return torch.cat([self.heard.get(rank, tensor[:0]) for rank in range(self.world)])


def generator() -> MlpGenerator:
    torch.manual_seed(0)
    net = MlpGenerator(4, (3,), widths=(6, 5))
    for norm in net.norms:
        nn.init.normal_(norm.running_mean)
    return net


def latents(ids: torch.Tensor) -> torch.Tensor:
    return Streams(5).normal("standing", ids, (4,))


def test_standing_statistics_are_the_cumulative_mean_of_torch():
    net, other = generator(), generator()
    found = standing_statistics(net.eval(), latents, count=70, batch=16)
    # The same by hand: torch's layers with momentum=None.
    norms = [nn.BatchNorm1d(width, momentum=None) for width in (6, 5)]
    for first in range(0, 80, 16):
        x = latents(torch.arange(first, first + 16))
        for layer, norm in zip(other.layers, norms, strict=True):
            x = torch.relu(norm(layer(x)))
    for i, norm in enumerate(norms):
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(found[f"norms.{i}.{key}"], norm.state_dict()[key])


def test_standing_statistics_leave_the_network_and_can_be_worn():
    net = generator().eval()
    net.norms[0].train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = standing_statistics(net, latents, 64, 16)
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in net.modules()].count(True) == 1
    net.eval()
    plain = net(latents(torch.arange(8)))
    with wearing(net, found):
        assert torch.equal(net.norms[1].running_var, found["norms.1.running_var"])
        assert not torch.allclose(net(latents(torch.arange(8))), plain)
    assert torch.equal(net(latents(torch.arange(8))), plain)
    assert standing_statistics(nn.Linear(4, 2), latents, 64) == {}


@pytest.mark.parametrize("world", [2, 3, 7])
def test_standing_statistics_do_not_depend_on_the_ranks(world):
    """Each rank is asked twice: first to hear what it says, then with what the others said."""
    one, heard = standing_statistics(generator(), latents, 5 * 16, 16), {}
    for rank in range(world):
        with contextlib.suppress(IndexError):
            standing_statistics(generator(), latents, 5 * 16, 16, Part(rank, world, heard))
    assert len(heard) == world
    for rank in range(world):
        each = standing_statistics(generator(), latents, 5 * 16, 16, Part(rank, world, heard))
        torch.testing.assert_close(each, one, rtol=0, atol=0)
