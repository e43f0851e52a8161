"""Posterior samplers where the posterior is known: mixtures of Gaussians with a linear measurement.

Distance to exact samples (sliced W2 over 64 directions), error of the posterior mean, ratio of the posterior variances.
Every guided method has its best weight of a small grid, by that distance itself (an oracle); `floor` is the distance
between two independent sets of exact samples. What has no weight sees four times as many measurements. About 20 minutes
of one core; GENERATIVE_BENCH names a folder that an interrupted benchmark goes on from.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.estimate import mean_estimate
from generative.data.files import write_aside
from generative.methods.stsl.baselines.dps import Dps, dps
from generative.methods.stsl.baselines.psld import Psld, psld
from generative.methods.stsl.covariance import mmps
from generative.methods.stsl.mixtures import Mixture, exact_guidance
from generative.methods.stsl.operators.base import matrix_operator
from generative.methods.stsl.problem import Problem, StreamDraws
from generative.methods.stsl.sampler import GuidedSampling, Stsl, guided, stsl
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams

DIRECTIONS = 64
UNTUNED_SETS = 4
"""Sets of measurements for what has no weight to tune, and so costs little: distances differ much between them."""


@dataclass(frozen=True)
class Case:
    """A mixture with its measurement: y = matrix z0 + sigma n."""

    name: str
    mixture: Mixture
    matrix: Tensor
    sigma: float

    def measurements(self, count: int, sets: int = 1) -> Tensor:
        """[sets * count, m], of fresh points; the first set is the same whatever the number of sets."""
        found: list[Tensor] = []
        for number in range(sets):
            generator = torch.Generator().manual_seed(11 + number)
            clean = self.mixture.sample(count, generator) @ self.matrix.T
            found.append(clean + self.sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype))
        return torch.cat(found)

    def problem(self, y: Tensor, chains: int, seed: int) -> Problem:
        """Many chains of one measurement."""
        draws = StreamDraws(Streams(seed).within("stsl_exact"), torch.arange(chains), torch.float64)
        return Problem(self.mixture.prior(), matrix_operator(self.matrix), y.expand(chains, -1), self.sigma, draws)


@dataclass(frozen=True)
class Size:
    """How much is measured: problems, measurements and chains of each, steps."""

    names: Sequence[str] = ("gauss4", "gmm2", "ring2", "gmm8")
    measurements: int = 6
    chains: int = 500
    steps: int = 50
    inner: int = 5


FULL = Size()
QUICK = Size(("gauss4", "gmm2"), 1, 30, 4, 2)

Run = Callable[[Problem, float], Tensor]
"""(problem, weight) -> points."""


@dataclass(frozen=True)
class Contender:
    """What is compared.

    Args:
        run: the sampler.
        weights: the grid that its weight is taken from.
        told: what it is.
        nfe: evaluations as papers count.
        goals: of its distance by problem.
        sets: of measurements.
    """

    run: Run
    weights: Sequence[float]
    told: str
    nfe: int
    goals: dict[str, str] | None = None
    sets: int = 1


@dataclass(frozen=True)
class Found:
    """Of one measurement: distance, error of the mean in standard deviations, ratio of variances, costs of a chain."""

    distance: float
    mean_error: float
    variance_ratio: float
    rows: float
    vjps: float
    seconds: float


def cases(names: Sequence[str]) -> list[Case]:
    """The problems; numbers lie beside this module."""
    told = json.loads((files("evaluation.benchmarks") / "stsl_mixtures.json").read_text())
    found: list[Case] = []
    for name in names:
        parts = [torch.tensor(told[name][key], dtype=torch.float64) for key in ("weights", "means", "covariances")]
        matrix = torch.tensor(told[name]["matrix"], dtype=torch.float64)
        found.append(Case(name, Mixture(*parts), matrix, told[name]["sigma"]))
    return found


def sliced_w2(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Root of the mean over directions of the squared 2-Wasserstein distance along them; equal numbers of points."""
    directions = torch.randn(a.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    sorted_a, sorted_b = ((points @ directions).sort(dim=0).values for points in (a, b))
    return float((sorted_a - sorted_b).square().mean().sqrt())


def contenders(case: Case, size: Size) -> dict[str, Contender]:
    """What is compared."""
    steps, inner = size.steps, size.inner
    scales = (0.03, 0.1, 0.2, 0.4, 0.7, 1.0)

    def steer(problem: Problem, weight: float, guidance: object) -> Tensor:
        del weight
        return guided(problem, guidance, GuidedSampling(steps, ddim_eta=1.0)).image  # type: ignore[arg-type]

    def by_dps(problem: Problem, weight: float) -> Tensor:
        return dps(problem, Dps(steps, weight, "squared", clip=False)).image

    def by_psld(problem: Problem, weight: float) -> Tensor:
        return psld(problem, Psld(steps, weight, 0.1 * weight, ddim_eta=1.0)).image

    def by_stsl(problem: Problem, weight: float, eta: float, probe: str) -> Tensor:
        terms = Terms(weight / inner, "squared", eta, probe, 0.3)  # type: ignore[arg-type]
        return stsl(problem, Stsl(terms, steps, inner, "q_sample", 1.0, early_exit=False)).image

    guided_goals = {"gauss4": "<= 0.14", "gmm2": "<= 0.14"}
    levels = f"{steps} levels"
    found = {
        "exact": Contender(
            partial(steer, guidance=exact_guidance(case.mixture, case.matrix)),
            (1.0,),
            f"exact guidance, {levels}",
            steps,
            sets=UNTUNED_SETS,
        ),
        "mmps": Contender(
            partial(steer, guidance=partial(mmps, solver_steps=8)),
            (1.0,),
            f"covariance-aware, {levels}",
            steps,
            guided_goals,
            UNTUNED_SETS,
        ),
        "dps": Contender(by_dps, scales, f"DPS, squared norm, {levels}", steps),
        "psld": Contender(by_psld, scales, f"PSLD-like without an autoencoder, {levels}", steps),
    }
    for name, eta, probe in (
        ("first_order", 0.0, "scaled"),
        ("stsl_scaled", 0.03, "scaled"),
        ("stsl_scaled_0.1", 0.1, "scaled"),
        ("stsl_unit", 0.02, "unit"),
    ):
        told = f"{inner} updates at each of {levels}, probe {probe}, eta {eta:g}"
        found[name] = Contender(partial(by_stsl, eta=eta, probe=probe), scales, told, steps * inner)
    return found


def compare(case: Case, size: Size, contender: Contender) -> tuple[list[Found], float]:
    """Results by measurement at the best weight, and that weight."""
    best: tuple[float, list[Found], float] | None = None
    for weight in contender.weights:
        found = [
            _one(case, size, contender, y, number, weight)
            for number, y in enumerate(case.measurements(size.measurements, contender.sets))
        ]
        mean = sum(one.distance for one in found) / len(found)
        mean = mean if mean == mean else float("inf")
        if best is None or mean < best[0]:
            best = mean, found, weight
    assert best is not None
    return best[1], best[2]


def kept(folder: Path, case: Case, size: Size, name: str, contender: Contender) -> tuple[list[Found], float]:
    """`compare`; what the folder has of the same sizes and weights is read."""
    told = repr((size, contender.told, contender.weights, contender.sets))
    file = folder / f"{case.name}_{name}_{hashlib.sha256(told.encode()).hexdigest()[:8]}.json"
    if not file.is_file():
        found, weight = compare(case, size, contender)
        write_aside(file, json.dumps({"weight": weight, "found": [asdict(one) for one in found]}).encode())
    read = json.loads(file.read_text())
    return [Found(**one) for one in read["found"]], read["weight"]


def _one(case: Case, size: Size, contender: Contender, y: Tensor, number: int, weight: float) -> Found:
    problem, begun = case.problem(y, size.chains, number), time.perf_counter()
    points = contender.run(problem, weight)
    seconds = (time.perf_counter() - begun) / size.chains
    posterior = case.mixture.posterior(case.matrix, y, case.sigma)
    wanted = posterior.sample(len(points), torch.Generator().manual_seed(1000 + number))
    spread = float(torch.trace(posterior.covariance))
    apart = float((points.mean(0) - posterior.mean).norm()) / spread**0.5
    cost, ratio = problem.cost.by_image(size.chains), float(points.var(0).sum()) / spread
    return Found(sliced_w2(points, wanted), apart, ratio, cost["rows"], cost["vjps"], seconds)


def floor(case: Case, size: Size) -> list[float]:
    """Distance between two sets of exact samples."""
    found: list[float] = []
    for number, y in enumerate(case.measurements(size.measurements, UNTUNED_SETS)):
        posterior = case.mixture.posterior(case.matrix, y, case.sigma)
        a, b = (posterior.sample(size.chains, torch.Generator().manual_seed(seed + number)) for seed in (1000, 5000))
        found.append(sliced_w2(a, b))
    return found


def figures(size: Size, folder: Path, wanted: Sequence[str] | None = None) -> dict[str, Figure]:
    """`NAME_w2_PROBLEM`, `NAME_mean_error_PROBLEM`, `NAME_variance_PROBLEM`, and `floor_w2_PROBLEM`."""
    told: dict[str, Figure] = {}
    for case in cases(size.names):
        distances = floor(case, size)
        least = mean_estimate(distances, "", f"two sets of exact samples; {_note(distances, size)}")
        told[f"floor_w2_{case.name}"] = figure(least)
        for name, contender in contenders(case, size).items():
            if wanted is not None and name not in wanted:
                continue
            found, weight = kept(folder, case, size, name, contender)
            goal = (contender.goals or {}).get(case.name)
            if name == "exact" and case.name in ("gauss4", "gmm2"):
                goal = f"<= {1.3 * least.value + 0.03:.4g}"
            tuned = f", best weight {weight:g} of {len(contender.weights)}" if len(contender.weights) > 1 else ""
            protocol = f"{contender.told}{tuned}; {_cost(found, contender)}; {_note(found, size)}"
            values = {what: [getattr(one, what) for one in found] for what in Found.__dataclass_fields__}
            told[f"{name}_w2_{case.name}"] = figure(mean_estimate(values["distance"], "", protocol), goal)
            told[f"{name}_mean_error_{case.name}"] = figure(mean_estimate(values["mean_error"], "std", protocol))
            told[f"{name}_variance_{case.name}"] = figure(mean_estimate(values["variance_ratio"], "", protocol))
            say(f"{case.name} {name}: W2 {told[f'{name}_w2_{case.name}']['value']:.3f} at weight {weight:g}")
    return told


def _cost(found: Sequence[Found], contender: Contender) -> str:
    rows, vjps, seconds = (
        sum(getattr(one, what) for one in found) / len(found) for what in ("rows", "vjps", "seconds")
    )
    return f"a chain: {rows:.4g} rows, {vjps:.4g} vjps, {1e3 * seconds:.2g} ms; a paper's NFE: {contender.nfe}"


def _note(found: Sequence[object], size: Size) -> str:
    return f"{len(found)} measurements of {size.chains} chains, sliced W2 of {DIRECTIONS} directions"


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    with workplace("stsl_exact") as folder:
        return figures(QUICK if quick else FULL, folder)
