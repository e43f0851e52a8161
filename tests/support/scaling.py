"""Runs on known surfaces, and the tables of published ones where they are at hand."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.scaling.forms import Surface
from evaluation.scaling.points import Points, points_of

TABLES = Path(os.environ.get("GENERATIVE_SCALING_TABLES") or Path(__file__).parents[3] / "shared/golden/scaling_laws")
HOFFMANN = Surface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
BUDGETS = (1e17, 1e18, 1e19, 1e20, 1e21)


def table(name: str) -> Path:
    """One of the published tables; skips the test where they are absent."""
    path = TABLES / name
    if not path.is_file():
        pytest.skip(
            f"no {path}: the tables are not part of the repository (GENERATIVE_SCALING_TABLES names their folder)"
        )
    return path


def rows(name: str) -> list[dict[str, str]]:
    with table(name).open() as file:
        return list(csv.DictReader(file))


def facts(name: str) -> Any:
    return json.loads(table(name).read_text())


def column(of: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in of])


def isoflop_runs(
    surface: Surface = HOFFMANN,
    budgets: tuple[float, ...] = BUDGETS,
    *,
    sizes: int = 9,
    half_width: float = 8.0,
    shift: float = 1.0,
    sigma: float = 0.0,
    seed: int = 0,
) -> Points:
    """Runs at C = 6 N D, geometrically around `shift` x the best size of each budget, with noise on log L."""
    C = np.repeat(budgets, sizes)
    N = surface.optimum(C)[0] * shift * np.tile(np.geomspace(1 / half_width, half_width, sizes), len(budgets))
    D = C / (6 * N)
    noise = np.random.default_rng(seed).normal(0.0, sigma, len(C)) if sigma else 0.0
    return points_of(N, D, surface.loss(N, D) * np.exp(noise), C=C)
