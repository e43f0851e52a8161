from __future__ import annotations

import pytest
import torch

from generative.methods.rece.transform import Transform


def transform(seed: int, width: int = 9, rank: int = 3) -> Transform:
    draw = torch.Generator().manual_seed(seed)
    return Transform(*(torch.randn(width, rank, generator=draw, dtype=torch.float64) / 3 for _ in range(2)))


def test_stacking_multiplies() -> None:
    first, second = transform(0), transform(1, rank=2)
    torch.testing.assert_close(first.then(second).matrix, first.matrix @ second.matrix, rtol=1e-12, atol=1e-12)
    assert first.then(second).rank == 5
    wide = first.then(transform(2, rank=8))
    assert wide.rank <= 9
    torch.testing.assert_close(wide.matrix, first.matrix @ transform(2, rank=8).matrix, rtol=1e-12, atol=1e-12)
    same = Transform.identity(9).then(first)
    assert torch.equal(same.matrix, first.matrix)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, -1.0])
def test_dial(strength: float) -> None:
    one = transform(0)
    wanted = torch.eye(9, dtype=torch.float64) + strength * (one.matrix - torch.eye(9))
    torch.testing.assert_close(one.scaled(strength).matrix, wanted)


def test_the_text_side_is_the_weight_side() -> None:
    one, states = transform(0), torch.randn(2, 5, 9, dtype=torch.float64)
    weight = torch.randn(4, 9, dtype=torch.float64)
    torch.testing.assert_close(one.on_states(states) @ weight.T, states @ one.on_weight(weight).T)
    assert one.on_states(states.bfloat16()).dtype == torch.bfloat16


def test_some_columns_only() -> None:
    one, weight = transform(0), torch.randn(4, 14)
    found = one.on_weight(weight, slice(0, 9))
    assert torch.equal(found[:, 9:], weight[:, 9:])
    torch.testing.assert_close(found[:, :9].double(), weight[:, :9].double() @ one.matrix, rtol=1e-6, atol=1e-6)
    assert torch.equal(Transform.identity(9).on_weight(weight, slice(0, 9)), weight)


def test_rank_and_error() -> None:
    one = transform(0)
    doubled = Transform(torch.cat([one.p, one.p], 1), torch.cat([one.q, 2 * one.q], 1))
    found, missed = doubled.compressed()
    assert (found.rank, missed < 1e-14) == (3, True)
    torch.testing.assert_close(found.matrix, doubled.matrix, rtol=1e-12, atol=1e-12)
    values = torch.linalg.svdvals(one.matrix - torch.eye(9))
    found, missed = one.compressed(2)
    assert found.rank == 2
    assert missed == pytest.approx(float(values[2] / values.norm()))
    assert float((found.matrix - one.matrix).norm()) == pytest.approx(float(values[2]))
    assert Transform.identity(9).compressed()[0].rank == 0


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_singular_values(rank: int) -> None:
    one = transform(3, rank=rank)
    dense = torch.linalg.svdvals(one.matrix)
    found = one.singular_values()
    ones = torch.ones(9 - len(found), dtype=torch.float64)
    torch.testing.assert_close(torch.cat([found, ones]).sort().values, dense.sort().values, rtol=1e-10, atol=1e-10)
    assert one.smallest_singular_value() == pytest.approx(float(dense.min()))
    assert Transform.identity(9).smallest_singular_value() == 1
