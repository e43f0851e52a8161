from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from generative.nets import linear_cross_entropy as module
from generative.nets.linear_cross_entropy import linear_cross_entropy


def problem(rows=9, width=6, vocab=11, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(vocab, (rows,), generator=generator)
    return hidden, weight, targets, torch.rand(rows, generator=generator, dtype=dtype) * 3


def plain(hidden, weight, targets, weights):
    nll = F.cross_entropy(F.linear(hidden, weight), targets, reduction="none")
    return (weights * nll).sum(), nll


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 1000))
def test_value_and_gradients_are_those_of_cross_entropy(rows, chunk, seed):
    hidden, weight, targets, weights = problem(rows, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.CHUNK_ELEMENTS, "cpu", chunk)
        total, nll = linear_cross_entropy(hidden, weight, targets, weights)
        ours = torch.autograd.grad(2.5 * total, (hidden, weight))
    expected, expected_nll = plain(hidden, weight, targets, weights)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(nll, expected_nll.detach())
    for mine, theirs in zip(ours, torch.autograd.grad(2.5 * expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_rows_give_zero_and_zero_gradients():
    hidden, weight, targets, weights = problem(rows=0)
    total, nll = linear_cross_entropy(hidden, weight, targets, weights)
    total.backward()
    assert total.item() == 0.0
    assert len(nll) == 0
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    assert hidden.grad.shape == hidden.shape


def test_rows_of_weight_zero_are_padding():
    hidden, weight, targets, weights = problem()
    padded = torch.cat([hidden.detach(), torch.full((3, 6), 7.0, dtype=torch.float64)]).requires_grad_()
    total, _ = linear_cross_entropy(padded, weight, F.pad(targets, (0, 3)), F.pad(weights, (0, 3)))
    total.backward()
    expected = torch.autograd.grad(plain(hidden, weight, targets, weights)[0], weight)[0]
    torch.testing.assert_close(weight.grad, expected)
    assert not padded.grad[9:].any()


def test_used_twice_and_walked_twice():
    hidden, weight, targets, weights = problem()

    def twice(function):
        return function(hidden, weight, targets, weights)[0] + function(2 * hidden, weight, targets, weights)[0]

    total = twice(linear_cross_entropy)
    first = torch.autograd.grad(total, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(total, (hidden, weight))
    expected = torch.autograd.grad(twice(plain), (hidden, weight))
    for a, b, c in zip(first, second, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


def test_gradients_of_gradients_are_refused():
    hidden, weight, targets, weights = problem()
    total, _ = linear_cross_entropy(hidden, weight, targets, weights)
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        torch.autograd.grad(total, hidden, create_graph=True)


@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_frozen_parts_get_no_gradient(frozen):
    hidden, weight, targets, weights = problem()
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    total, _ = linear_cross_entropy(hidden, weight, targets, weights)
    assert total.requires_grad == (frozen != "both")
    if frozen != "both":
        total.backward()
    assert (hidden.grad is None) == (frozen != "weight")
    assert (weight.grad is None) == (frozen != "hidden")


def test_without_gradient_mode_the_values_are_the_same():
    hidden, weight, targets, weights = problem(dtype=torch.float32)
    with torch.no_grad():
        without, nll = linear_cross_entropy(hidden, weight, targets, weights)
    total, expected = linear_cross_entropy(hidden, weight, targets, weights)
    assert not without.requires_grad
    assert torch.equal(nll, expected)
    assert torch.equal(without, total.detach())


def test_bf16_autocast_multiplies_in_bf16_and_sums_in_fp32():
    hidden, weight, targets, weights = problem(rows=50, width=32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        total, nll = linear_cross_entropy(hidden, weight, targets, weights)
    total.backward()
    _, expected_nll = plain(hidden.bfloat16().float(), weight.bfloat16().float(), targets, weights)
    exact = torch.autograd.grad(plain(hidden, weight, targets, weights)[0], weight)[0]
    assert total.dtype == nll.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(nll, expected_nll.detach(), rtol=0.02, atol=0.05)
    assert float((weight.grad - exact).norm() / exact.norm()) < 0.02


def test_logits_of_a_thousand_are_no_trouble():
    hidden, weight, targets, weights = problem(dtype=torch.float32)
    total, nll = linear_cross_entropy(1000 * hidden, weight, targets, weights)
    total.backward()
    assert nll.isfinite().all()
    assert weight.grad.isfinite().all()
