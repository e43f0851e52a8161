"""Fits of published runs against the optimum of their stated objective, and against published figures.

The tables do not come with the distribution: the environment variable GENERATIVE_SCALING_TABLES names their folder
(chinchilla_epoch.csv and chinchilla_epoch_fits.json after Besiroglu et al. 2024, gadre_fits.json after Gadre et al.).
"""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.estimate import Estimate, bootstrap_median
from evaluation.scaling.engine import solve
from evaluation.scaling.parametric import bootstrap_surface, fit_surface, intervals
from evaluation.scaling.points import Points, points_of
from evaluation.scaling.problem import FitOptions
from evaluation.scaling.published import BESIROGLU_INTERVALS
from evaluation.scaling.published_grid import grid_optimum, grid_starts

VARIABLE = "GENERATIVE_SCALING_TABLES"
FILES = ("chinchilla_epoch.csv", "chinchilla_epoch_fits.json", "gadre_fits.json")
SHARE = 45
"""Every so many of the 4,500 starts are descended in a quick run; times are scaled up and said to be."""


def tables() -> Path | None:
    """The folder of tables; None (and a message) where there is none."""
    folder = os.environ.get(VARIABLE)
    missing = [name for name in FILES if not (Path(folder or "") / name).is_file()]
    if folder and not missing:
        return Path(folder)
    why = f"{VARIABLE}={folder} lacks {', '.join(missing)}" if folder else f"{VARIABLE} is not set"
    say(f"{why}: the published tables are not there, and their figures are left out")
    return None


def run(quick: bool) -> dict[str, Figure]:
    """objective_gap, intervals that hold the published centre, gadre_error_gap, speedup_vs_grid."""
    folder = tables()
    if folder is None:
        return {}
    known = json.loads((folder / "chinchilla_epoch_fits.json").read_text())
    points = _chinchilla(folder)
    return _objectives(points, known) | _intervals(points, quick) | _gadre(folder) | _speed(points, quick)


def _chinchilla(folder: Path) -> Points:
    with (folder / "chinchilla_epoch.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["used"] == "1"]
    return points_of(*([float(row[key]) for row in rows] for key in ("N", "D", "loss")))


def _objectives(points: Points, known: Any) -> dict[str, Figure]:
    """How much higher our objectives are than the known optima, as a fraction; 0 where they are lower."""
    found = {
        "huber": (fit_surface(points).solution.objective, known["huber_1e_3_optimum_ours"]["objective_sum"]),
        "lad": (
            fit_surface(points, FitOptions(loss="lad")).solution.objective,
            known["published_besiroglu"]["l1_sum_at_it"],
        ),
    }
    gaps = {name: max(ours / best - 1, 0.0) for name, (ours, best) in found.items()}
    note = "fitted objective / known optimum - 1, 240 runs of Hoffmann et al. 2022"
    figures = {
        f"objective_gap_{name}": figure(Estimate(gap, None, 1, "", note), "<= 1e-6") for name, gap in gaps.items()
    }
    return {
        "objective_gap": figure(Estimate(max(gaps.values()), None, 2, "", f"larger of both; {note}"), "<= 1e-6")
    } | figures


def _intervals(points: Points, quick: bool) -> dict[str, Figure]:
    """Bootstrap intervals of ours that contain the centre of the published ones."""
    fit = fit_surface(points)
    told = intervals(fit, bootstrap_surface(fit, 200 if quick else 1000), 5.88e23)
    inside = {
        name: told[name].low < (low + high) / 2 < told[name].high
        for name, (low, high) in BESIROGLU_INTERVALS.items()
        if name in told
    }
    missed = ", ".join(name for name, ok in inside.items() if not ok)
    note = f"parameters whose 95 % interval holds the centre of the published one{f'; not {missed}' if missed else ''}"
    share = sum(inside.values()) / len(inside)
    return {"intervals_hold_published": figure(Estimate(share, None, len(inside), "", note), ">= 1")}


def _gadre(folder: Path) -> dict[str, Figure]:
    """max over extrapolated rows of |our relative error - the known one|."""
    gaps = []
    for known in json.loads((folder / "gadre_fits.json").read_text())["fits"].values():
        small = known["fit_points"]
        points = points_of(*([row[key] for row in small] for key in ("N", "D", "loss_c4_val")))
        surface = fit_surface(points, FitOptions(loss="mse", tied=True, starts=20)).surface
        for row in known["extrapolation"]:
            error = abs(float(surface.loss(row["N"], row["D"])) / row["loss"] - 1)
            gaps.append(abs(error - row["rel_err_pct"] / 100))
    note = "largest |relative error - that of the known fit| of extrapolated runs of Gadre et al. 2024, fractions"
    return {"gadre_error_gap": figure(Estimate(max(gaps), None, len(gaps), "", note), "<= 1e-3")}


def _speed(points: Points, quick: bool) -> dict[str, Figure]:
    """Time of the published grid of starts over that of the projection, at an objective that is no worse."""
    problem = fit_surface(points).solution.problem
    ours = []
    for _ in range(7):
        began = time.perf_counter()
        solution = solve(problem)
        ours.append(time.perf_counter() - began)
    starts = grid_starts()[:: SHARE if quick else 1]
    began = time.perf_counter()
    grid = grid_optimum(problem, starts)
    seconds = (time.perf_counter() - began) * len(grid_starts()) / len(starts)
    worse = max(solution.objective / grid.objective - 1, 0.0)
    scaled = f", times scaled up from {len(starts)} of them" if quick else ""
    note = f"4,500 starts of L-BFGS, one pass{scaled}, over {len(ours)} fits by projection, in one process"
    return {
        "speedup_vs_grid": figure(bootstrap_median([seconds / one for one in ours], "x", note), ">= 500"),
        "objective_over_grid": figure(Estimate(worse, None, 1, "", "our objective / the grid's - 1"), "<= 1e-9"),
    }
