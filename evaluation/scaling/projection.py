"""Starts of a fit by variable projection: for given exponents, floor and factors are a linear problem.

Golub and Pereyra 1973. The relative error of the loss is minimised over non-negative floor and factors, for all
exponents of a grid at once; the best cells are starts from which a descent finds the optimum.

Shapes: n points, V variables (N and D, or one), G cells of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from evaluation.scaling.points import Floats

EXPONENTS = np.linspace(0.05, 1.0, 20)


@dataclass(frozen=True)
class Projected:
    """The best cells of the grid, best first.

    Args:
        exponents: float64[G, V].
        factors: float64[G, V], of the terms at the centre of each variable; not negative.
        floor: float64[G]; not negative.
        error: float64[G], the sum of weighted squares of relative errors.
    """

    exponents: Floats
    factors: Floats
    floor: Floats
    error: Floats


def project(
    log_x: Floats, loss: Floats, weight: Floats, *, floor: float | None = None, tied: bool = False, best: int = 5
) -> Projected:
    """Non-negative least squares at each cell.

    Args:
        log_x: float64[n, V], centred.
        loss: float64[n].
        weight: float64[n].
        floor: of the loss where it is known; None to fit it.
        tied: one exponent for all variables.
        best: cells to return.
    """
    V, G = log_x.shape[1], len(EXPONENTS)
    cells = np.array([(i,) * V for i in range(G)] if tied else list(product(range(G), repeat=V)))
    exponents, scale = EXPONENTS[cells], np.sqrt(weight) / loss
    single = np.exp(-EXPONENTS[:, None, None] * log_x) * scale[:, None]
    powers = np.stack([single[cells[:, v], :, v] for v in range(V)], axis=-1)
    target = (loss - (floor or 0.0)) * scale
    constant = np.broadcast_to(scale[:, None], (*powers.shape[:2], 1))
    columns = powers if floor is not None else np.concatenate([powers, constant], axis=-1)
    solution, error = non_negative_least_squares(columns, target)
    order = np.argsort(error, kind="stable")[:best]
    fitted = solution[order]
    floors = np.full(len(order), float(floor)) if floor is not None else fitted[:, V]
    return Projected(exponents[order], fitted[:, :V], floors, error[order])


def non_negative_least_squares(columns: Floats, target: Floats) -> tuple[Floats, Floats]:
    """min |columns x - target|^2 over x >= 0, for many matrices at once.

    The optimum is the plain least-squares solution on the columns that it uses, so with a few columns all subsets are
    tried: exact, and without a loop over matrices.

    Args:
        columns: float64[G, n, K], K at most about 4.
        target: float64[n].

    Returns:
        x float64[G, K] and the sum of squares float64[G].
    """
    G, _, K = columns.shape
    size = np.sqrt((columns**2).sum(axis=1)) + 1e-300
    unit = columns / size[:, None]
    gram, right = unit.transpose(0, 2, 1) @ unit, unit.transpose(0, 2, 1) @ target
    best, error = np.zeros((G, K)), np.full(G, float(target @ target))
    for count in range(1, K + 1):
        for chosen in map(list, combinations(range(K), count)):
            block = gram[:, chosen][:, :, chosen] + 1e-14 * np.eye(count)
            x = np.linalg.solve(block, right[:, chosen][..., None])[..., 0]
            squares = float(target @ target) - (right[:, chosen] * x).sum(axis=1)
            better = (x >= 0).all(axis=1) & (squares < error)
            best[better] = 0.0
            best[np.ix_(better, chosen)] = x[better]
            error = np.where(better, squares, error)
    return best / size, error
