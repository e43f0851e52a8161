"""The closed forms: the ridge regression of UCE's edit, and RECE's derivation of the embedding that undoes it.

float64 throughout. M and M1 are symmetric and positive definite, and are solved by Cholesky; no inverse is formed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from generative.errors import DataError
from generative.methods.rece.tokens import Pairs

Regulariser = Literal["zero", "standard", "surrogate_1st", "surrogate_2nd", "surrogate_both"]

BLOCKS = 8
"""Column blocks of a Gram matrix: only those on and above the diagonal are computed, 9/16 of the work."""


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """X of `matrix` X = `right` for a symmetric positive semidefinite matrix.

    A singular matrix (no ridge) gives the solution of least norm: directions whose eigenvalue is below d eps times the
    largest are left out.

    Raises:
        DataError: numbers that are not finite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        return torch.cholesky_solve(right, factor)
    check_finite(matrix, "the sums over embeddings and weights")
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    vectors = vectors[:, kept]
    found: Tensor = vectors @ ((vectors.T @ right) / values[kept, None])
    return found


def check_finite(tensor: Tensor, name: str) -> None:
    """Raises DataError: NaN or infinity in it."""
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise DataError(
            f"{name}: {bad:,} of {tensor.numel():,} numbers are NaN or infinite",
            expected="finite numbers",
            remedy="take an undamaged copy of the model, in a number format that holds its values",
        )


def gram(matrices: Iterable[Tensor], width: int) -> Tensor:
    """Sum over matrices of W^T W, float64[width, width]; one matrix at a time is held in float64."""
    total = torch.zeros(width, width, dtype=torch.float64)
    edges = sorted({width * i // BLOCKS for i in range(BLOCKS + 1)})
    for matrix in matrices:
        rows = matrix.double()
        for first, last in itertools.pairwise(edges):
            total[first:last, first:].addmm_(rows[:, first:last].T, rows[:, first:])
    return torch.triu(total) + torch.triu(total, 1).T


def cross_gram(lefts: Iterable[Tensor], rights: Iterable[Tensor], width: int) -> Tensor:
    """Sum of A^T B over matrices side by side, float64[width, width]."""
    total = torch.zeros(width, width, dtype=torch.float64)
    for left, right in zip(lefts, rights, strict=True):
        total.addmm_(left.double().T, right.double())
    return total


def edit_directions(pairs: Pairs, kept: Tensor, lamb: float, erase_scale: float) -> Tensor:
    """Q = s_e M^-1 X^T, float64[d, n], of the edit W_new = W + (V* - W X^T) Q^T, V* the targets [o, n].

    M = lamb I + s_e X^T X + sum s_p c_j c_j^T has no weights in it: it is the same for all layers, and what is kept
    (targets W c_j) drops out of the numerator.

    Args:
        pairs: X is `old`.
        kept: sum of s_p c_j c_j^T, float64[d, d].
        lamb: pull towards the current weights, at least 0.
        erase_scale: s_e, above 0.
    """
    scaled = pairs.old * erase_scale
    matrix = torch.addmm(kept, scaled.T, pairs.old)
    matrix.diagonal().add_(lamb)
    return solve(matrix, scaled.T)


def derive(
    rows: Tensor,
    current: Tensor,
    mixed: Tensor,
    lam: float,
    regulariser: Regulariser = "zero",
    target: Tensor | None = None,
) -> Tensor:
    """C': what gives the edited model the outputs that the original gave for `rows`; float64[n, d], row by row.

    argmin over c' of sum_i |W_i c' - W_i^orig c|^2 + lam |c'|^2 (zero, the published method), + lam |c' - t|^2
    (standard), or lam times the distance to c in the outputs (surrogate_*; `surrogate_1st` has no ridge and can be
    singular).

    Args:
        rows: c, float64[n, d].
        current: sum over all K and V of W^T W, float64[d, d].
        mixed: sum of W^T W^orig, float64[d, d].
        lam: at least 0.
        regulariser: which of the penalties.
        target: t of `standard`, float64[n, d].
    """
    left, right = current.clone(), mixed
    if regulariser in ("surrogate_1st", "surrogate_both"):
        left, right = (1 + lam) * current, mixed + lam * current
    if regulariser in ("surrogate_2nd", "surrogate_both"):
        right = right + lam * torch.eye(len(current), dtype=current.dtype)
    if regulariser != "surrogate_1st":
        left.diagonal().add_(lam)
    wanted = right @ rows.T
    if regulariser == "standard":
        if target is None:
            raise ValueError("the regulariser `standard` needs a target")
        wanted = wanted + lam * target.T
    return solve(left, wanted).T
