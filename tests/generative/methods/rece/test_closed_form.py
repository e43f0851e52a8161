"""Each closed form is what it says: a minimum, a sum, a solution."""

from __future__ import annotations

import pytest
import torch

from generative.errors import DataError
from generative.methods.rece.closed_form import derive, edit_directions, gram, solve
from generative.methods.rece.config import EraseConfig
from generative.methods.rece.erase import erase
from generative.methods.rece.layers import Layers, recover_transform
from generative.methods.rece.tokens import Pairs
from generative.methods.rece.transform import Transform
from tests.generative.methods.rece.texts import prompt, shared, task, weights


@pytest.mark.parametrize("penalty", ["zero", "standard"])
def test_the_derived_embedding_is_the_minimum(penalty: str) -> None:
    originals, lam = weights(), 0.01
    edited = {name: w + 0.1 * torch.sin(w) for name, w in originals.items()}
    rows, target = prompt("church").rows, prompt("").rows
    current, mixed = Layers(originals, edited).normal()
    found = derive(rows, current, mixed, lam, penalty, target).requires_grad_()
    loss = lam * (found - (target if penalty == "standard" else 0)).square().sum()
    for name, weight in edited.items():
        loss = loss + (found @ weight.T - rows @ originals[name].T).square().sum()
    loss.backward()
    assert float(found.grad.abs().max()) < 1e-10


def test_surrogates_in_closed_form() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = prompt("golf").rows
    root = torch.randn(20, 12, generator=draw, dtype=torch.float64)
    s, m, eye, lam = (
        root.T @ root,
        torch.randn(12, 12, generator=draw, dtype=torch.float64),
        torch.eye(12).double(),
        0.3,
    )
    wanted = {
        "surrogate_1st": rows @ (torch.linalg.inv((1 + lam) * s) @ (m + lam * s)).T,
        "surrogate_2nd": rows @ (torch.linalg.inv(lam * eye + s) @ (lam * eye + m)).T,
        "surrogate_both": rows @ (torch.linalg.inv(lam * eye + (1 + lam) * s) @ (lam * eye + m + lam * s)).T,
    }
    for name, value in wanted.items():
        torch.testing.assert_close(derive(rows, s, m, lam, name), value, rtol=1e-9, atol=1e-9)


def test_gram_and_its_blocks() -> None:
    matrices = [torch.randn(5, 13), torch.randn(3, 13, dtype=torch.float64), torch.randn(4, 13).half()]
    wanted = sum(m.double().T @ m.double() for m in matrices)
    torch.testing.assert_close(gram(matrices, 13), wanted, rtol=1e-13, atol=1e-13)


def test_solve_where_there_is_no_ridge() -> None:
    rows = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrix = rows.T @ rows
    found = solve(matrix, matrix @ torch.ones(6, 1, dtype=torch.float64))
    torch.testing.assert_close(found, torch.linalg.pinv(rows) @ rows.sum(1, keepdim=True), rtol=1e-8, atol=1e-8)
    with pytest.raises(DataError, match="NaN or infinite"):
        solve(matrix * torch.nan, matrix)


def test_directions_keep_what_is_kept() -> None:
    """With much weight on what is kept, those rows do not move."""
    kept = prompt("tree").rows[:3]
    pairs = Pairs(prompt("church").rows[:2], prompt("art").rows[:2])
    q = edit_directions(pairs, 1e9 * kept.T @ kept, 1e-6, 1.0)
    found = Transform((pairs.new - pairs.old).T, q)
    torch.testing.assert_close(found.on_states(kept), kept, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.on_states(pairs.old), pairs.new, rtol=1e-4, atol=1e-4)


def test_the_transform_of_a_foreign_edit() -> None:
    matrices = weights(8)
    wanted = erase(shared(matrices), task(8), EraseConfig(epochs=0)).state.transform
    found, missed = recover_transform(matrices, {n: wanted.on_weight(w) for n, w in matrices.items()})
    torch.testing.assert_close(found, wanted.matrix, rtol=1e-6, atol=1e-6)
    assert missed < 1e-6
    tuned = {n: w + 0.1 * torch.randn_like(w) for n, w in matrices.items()}
    assert recover_transform(matrices, tuned)[1] > 0.3
