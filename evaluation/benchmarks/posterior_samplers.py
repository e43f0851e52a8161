"""Posterior samplers side by side on held-out images: quality, calibration and honest costs at equal tuning.

One weight of each sampler is tuned on some images, with the same number of trials; others are measured with several
seeds. Samplers run in as many processes of one thread as there are cores; what a folder has of them is not run again.

- `rows_ratio_at_psld_quality`: smallest rows of STSL over those of PSLD with 1,000 steps whose restorations have a
  classifier's accuracy within 0.01 and a mean feature distance within 2 %; not a number where none has.
- `rows_ratio_at_p2l_style_quality`: the same against the P2L-style sampler, whose 1,000 steps have 1,000 rows here (its
  paper counts 2,000: a text is tuned besides).
- `gain_at_equal_rows`: PSNR of STSL less that of its first-order form, both with 550 rows.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.kept import workplace
from evaluation.benchmarks.timing import one_thread
from evaluation.estimate import Estimate, mean_estimate
from evaluation.images.small import SmallExtractor
from evaluation.process_pool import in_pool
from evaluation.restoration import coverage, psnr, ssim
from generative.data.cache import available_cores
from generative.data.files import write_aside
from generative.methods.stsl.baselines.daps import Daps
from generative.methods.stsl.baselines.dps import Dps
from generative.methods.stsl.baselines.p2l_style import P2LStyle
from generative.methods.stsl.baselines.psld import Psld
from generative.methods.stsl.baselines.resample import Resample
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.operators.noise import with_noise
from generative.methods.stsl.prior import Prior
from generative.methods.stsl.problem import Problem, StreamDraws
from generative.methods.stsl.sampler import GuidedSampling, Stsl
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams

SIGMA = 0.05
TASKS = {
    "superres": "superres:factor=2",
    "inpaint": "inpaint:missing=0.7",
    "blur": "gaussian_blur:size=5,std=1",
}
GOALS = {"psld": "<= 0.25", "p2l_style": "<= 0.125"}
"""Of the smallest rows at the quality of these."""
ENOUGH = 300
"""Images that these goals are meant for; with fewer, the ratios only inform."""

WEIGHTS = {Dps: "scale", P2LStyle: "rho", GuidedSampling: "weight", Resample: "scale", Daps: "tau"}
"""The setting that is tuned."""
APART = 10**6
"""Between the addresses of the noise of one image by two seeds."""
UNITS = {"psnr": "dB", "ssim": "", "accuracy": "", "distance": "", "diversity": "", "coverage": "", "residual": ""}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        training: steps of the prior.
        tuning, testing: images.
        seeds: samples of each image.
        long: steps of PSLD, LDPS, DPS and the P2L-style sampler.
        tasks: of `TASKS`.
        grid: trials of the weight of STSL and of its first-order form, for 50 levels of 5 updates; for fewer
            updates they are larger, so that all of them go equally far.
    """

    training: int = 6000
    tuning: int = 97
    testing: int = 300
    seeds: Sequence[int] = (0, 1, 2)
    long: int = 1000
    tasks: Sequence[str] = tuple(TASKS)
    grid: Sequence[float] = (0.3, 0.6, 1.2)


@dataclass(frozen=True)
class Entry:
    """A sampler in the comparison: its settings by the weight that is tuned, and its trials."""

    method: str
    weights: Sequence[float]
    settings: Any
    ours: bool = False

    def at(self, weight: float) -> Any:
        """Settings with a weight."""
        settings = self.settings
        if isinstance(settings, Stsl):
            return replace(settings, terms=replace(settings.terms, weight=weight))
        if isinstance(settings, Psld):
            return replace(settings, omega=weight, gamma=0.1 * weight if settings.gamma else 0.0)
        return replace(settings, **{WEIGHTS[type(settings)]: weight})


def entries(size: Size) -> dict[str, Entry]:
    """All that can be compared; the weight of the data is tuned in three trials for each but the default."""
    trace = Terms(data_loss="norm", eta=1.0, probe="scaled", probe_size=0.1)
    paper = Terms(data_loss="norm", eta=0.02, probe="unit")
    first, long = replace(trace, eta=0.0), (0.1, 0.3, 1.0)

    def descent(method: str, terms: Terms, steps: int, inner: int, ours: bool = False) -> Entry:
        weights = [weight * (50 * 5) / (steps * inner) for weight in size.grid]
        return Entry(method, weights, Stsl(terms, steps, inner, early_exit=False), ours)

    return {
        "psld": Entry("psld", long, Psld(size.long)),
        "ldps": Entry("ldps", long, Psld(size.long, gamma=0.0)),
        "dps": Entry("dps", long, Dps(size.long)),
        "p2l_style": Entry("p2l_style", long, P2LStyle(size.long)),
        "resample": Entry("resample", (0.25, 0.5, 1.0), Resample(size.long // 2)),
        "daps": Entry("daps", (0.01, 0.03, 0.05), Daps(size.long // 5)),
        "first_order_75": descent("first_order", first, 25, 2),
        "first_order_300": descent("first_order", first, 50, 5),
        "first_order_550": descent("first_order", first, 50, 10),
        "stsl_unit_550": descent("stsl", paper, 50, 5),
        "stsl_125": descent("stsl", trace, 25, 2, ours=True),
        "stsl_225": descent("stsl", trace, 25, 4, ours=True),
        "stsl_550": descent("stsl", trace, 50, 5, ours=True),
        "stsl_default": Entry("stsl", (Stsl().terms.weight,), Stsl()),
        "mmps": Entry("mmps", (0.5, 1.0, 1.5), GuidedSampling(50)),
    }


@dataclass(frozen=True)
class Ground:
    """What samplers are compared on.

    Args:
        prior: of images, or of latents.
        device: where it computes.
        extractor: a classifier of such images, on the CPU.
        images: held out, float32[N, C, H, W].
        labels: of these, int64[N].
    """

    prior: Prior
    device: torch.device
    extractor: SmallExtractor
    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Comparison:
    """A benchmark.

    Args:
        name: of its folder and of its noise.
        prefix: of its figures.
        ground: (size, folder) -> what is compared on; trains what the folder has not.
        names: of `entries`.
    """

    name: str
    prefix: str
    ground: Callable[[Any, Path], Ground]
    names: Sequence[str]


@dataclass(frozen=True)
class Judged:
    """Restorations of one task by one sampler.

    Args:
        psnr, ssim, accuracy, distance, diversity, coverage, residual: by image, over seeds.
        cost: of one restoration.
        seconds: of one restoration.
        nfe: as papers count.
        weight: the best of the trials.
        lost: restorations that were not finite, and count as grey.
    """

    psnr: Tensor
    ssim: Tensor
    accuracy: Tensor
    distance: Tensor
    diversity: Tensor
    coverage: Tensor
    residual: Tensor
    cost: Mapping[str, float]
    seconds: float = math.nan
    nfe: int = 0
    weight: float = math.nan
    lost: int = 0

    @property
    def score(self) -> float:
        """What weights are tuned by: the mean feature distance, lower is better."""
        value = float(self.distance.mean())
        return value if math.isfinite(value) else math.inf

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            key: value.tolist() if isinstance(value, Tensor) else value
            for key, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> Judged:
        """What `to_json` gave."""
        tensors: dict[str, Any] = {name: torch.tensor(told[name], dtype=torch.float64) for name in UNITS}
        return Judged(**{**told, **tensors})


@dataclass(frozen=True)
class Job:
    """A sampler on a task, as it is told to another process."""

    comparison: Comparison
    size: Size
    task: str
    name: str
    folder: Path

    @property
    def entry(self) -> Entry:
        """The sampler."""
        return entries(self.size)[self.name]

    @property
    def file(self) -> Path:
        """Where its outcome is kept, by all that decides it."""
        told = repr((self.entry, TASKS[self.task], asdict(self.size) | {"tasks": (), "grid": ()}))
        return self.folder / f"{self.task}_{self.name}_{hashlib.sha256(told.encode()).hexdigest()[:8]}.json"


def compare(comparison: Comparison, size: Size) -> dict[str, Figure]:
    """Of each task and sampler: psnr, ssim, accuracy, feature distance, diversity, coverage, rows and vjps."""
    with workplace(comparison.name) as place:
        folder = place / f"steps_{size.training}"
        folder.mkdir(exist_ok=True)
        jobs = [Job(comparison, size, task, name, folder) for task in size.tasks for name in comparison.names]
        if not all(job.file.is_file() for job in jobs):
            _ground(comparison, size, folder)  # trained here, on all cores, before processes of one thread need it
        found: dict[tuple[str, str], Judged] = {}
        for job, judged in in_pool(run_job, jobs, min(len(jobs), available_cores())):
            assert judged is not None, f"the process of {job.task}, {job.name} was killed"
            found[job.task, job.name] = judged
            right, apart = float(judged.accuracy.mean()), judged.score
            say(f"{comparison.name}, {job.task}, {job.name}: accuracy {right:.3f}, distance {apart:.3f}")
    told: dict[str, Figure] = {}
    for task in size.tasks:
        told |= figures({name: found[task, name] for name in comparison.names}, task, size)
    return {f"{comparison.prefix}{key}": entry for key, entry in told.items()}


def run_job(job: Job) -> Judged:
    """Tune and measure; what the folder has is read."""
    if not job.file.is_file():
        with one_thread():
            judged = _tuned(_ground(job.comparison, job.size, job.folder), job)
        write_aside(job.file, json.dumps(judged.to_json()).encode())
    return Judged.from_json(json.loads(job.file.read_text()))


@lru_cache(maxsize=1)
def _ground(comparison: Comparison, size: Size, folder: Path) -> Ground:
    return comparison.ground(size, folder)


def _tuned(ground: Ground, job: Job) -> Judged:
    size, entry = job.size, job.entry
    tune, test = slice(0, size.tuning), slice(size.tuning, size.tuning + size.testing)
    trials = [restored(ground, job, entry.at(weight), tune, size.seeds[:1]).score for weight in entry.weights]
    weight = entry.weights[int(np.argmin(trials))]
    return replace(restored(ground, job, entry.at(weight), test, size.seeds), weight=weight)


def restored(ground: Ground, job: Job, settings: Any, part: slice, seeds: Sequence[int]) -> Judged:
    """Restore some images, all seeds of them in one batch, and judge them."""
    truth, labels, extractor, device = ground.images[part], ground.labels[part], ground.extractor, ground.device
    ids, name = torch.arange(part.start, part.stop), job.comparison.name
    operator = make_operator(TASKS[job.task], ground.prior.image)
    y = with_noise(operator(truth), "gaussian", SIGMA, ids, Streams(0).within(name)).to(device)
    draws = StreamDraws(
        Streams(0).within(f"{name}_samples"), torch.cat([ids + APART * seed for seed in seeds]), device=device
    )
    given = Problem(ground.prior, operator, torch.cat([y] * len(seeds)), SIGMA, draws)
    method, begun = METHODS[job.entry.method], time.perf_counter()
    image = method.run(given, settings).image
    seconds = (time.perf_counter() - begun) / len(image)
    residual = given.ratio(given.misfit(image)).cpu().reshape(len(seeds), -1)
    samples = image.cpu().reshape(len(seeds), *truth.shape)
    lost = ~samples.flatten(2).isfinite().all(2)
    samples = torch.where(lost[..., None, None, None], torch.zeros_like(samples), samples)
    wanted = extractor(truth).features
    seen = [extractor(sample.clamp(-1, 1)) for sample in samples]
    right = [extractor.class_probabilities(sample.clamp(-1, 1))[:, 0].argmax(1) == labels for sample in samples]
    apart = samples.std(0).flatten(1).mean(1) if len(samples) > 1 else torch.zeros(len(truth))
    covered = coverage(samples, truth) if len(samples) > 1 else torch.zeros(len(truth))
    return Judged(
        torch.stack([psnr(sample, truth) for sample in samples]).mean(0),
        torch.stack([ssim(sample, truth) for sample in samples]).mean(0),
        torch.stack(right).double().mean(0),
        torch.stack([(one.features - wanted).double().norm(dim=1) for one in seen]).mean(0),
        apart.double(),
        covered,
        residual.nanmean(0),
        given.cost.by_image(len(image)),
        seconds,
        method.nfe(settings),
        lost=int(lost.sum()),
    )


def figures(judged: Mapping[str, Judged], task: str, size: Size) -> dict[str, Figure]:
    """All figures of a task."""
    told: dict[str, Figure] = {}
    for name, one in judged.items():
        told |= _told(task, name, one, size)
    for base in GOALS:
        told[f"rows_ratio_at_{base}_quality_{task}"] = rows_ratio(judged, entries(size), base)
    gain = judged["stsl_550"].psnr - judged["first_order_550"].psnr
    note = f"PSNR of stsl_550 less that of first_order_550, by image, {task}"
    return told | {f"gain_at_equal_rows_{task}": figure(mean_estimate(gain.numpy(), "dB", note), ">= 0")}


def _told(task: str, name: str, judged: Judged, size: Size) -> dict[str, Figure]:
    trials, seeds = len(entries(size)[name].weights), len(size.seeds)
    rows = f"{judged.cost['rows']:g} rows, {judged.cost['vjps']:g} vjps, a paper's NFE {judged.nfe}; "
    rows += f"weight {judged.weight:g} of {trials} trials on {size.tuning} images; {seeds} seeds"
    rows += f"; {judged.lost} of all were not finite, and count as grey" if judged.lost else ""
    narrow = f"; {seeds} samples of the true posterior would cover about {0.9 * (seeds - 1) / (seeds + 1):.2g}"
    told = {
        f"{task}_{what}_{name}": figure(
            mean_estimate(getattr(judged, what).numpy(), unit, rows + (narrow if what == "coverage" else ""))
        )
        for what, unit in UNITS.items()
    }
    cost = {
        f"{task}_{what}_{name}": figure(Estimate(judged.cost[what], 0.0, 1, "", "of one restoration; exact"))
        for what in ("rows", "vjps", "decoder_vjps")
    }
    batch = f"of one restoration in a batch of {seeds * len(judged.psnr)}, one thread, this machine"
    return told | cost | {f"{task}_seconds_{name}": figure(Estimate(judged.seconds, None, 1, "s", batch))}


def rows_ratio(judged: Mapping[str, Judged], known: Mapping[str, Entry], other: str) -> Figure:
    """Smallest rows of STSL at another sampler's quality, over that sampler's."""
    base = judged[other]
    good = [
        one.cost["rows"]
        for name, one in judged.items()
        if known[name].ours
        and float(one.accuracy.mean()) >= float(base.accuracy.mean()) - 0.01
        and one.score <= 1.02 * base.score
    ]
    value, count = min(good) / base.cost["rows"] if good else math.nan, len(base.accuracy)
    note = f"smallest rows of STSL over those of {other} at its accuracy - 0.01 and 1.02 of its feature distance"
    told = note if good else f"{note}: reached by none"
    return figure(Estimate(value, None, count, "", told), GOALS[other] if count >= ENOUGH else None)
