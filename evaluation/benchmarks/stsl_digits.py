"""Restoring held-out digits with a diffusion prior of pixels: quality, calibration and honest costs of all samplers.

A prior is trained on the spot (edm, a fully connected network, labels left out half of the time). Of the 397 held-out
digits 97 tune one weight of each method, with the same number of trials; the other 300 are measured with three seeds.

- `rows_ratio_at_psld_quality`: smallest rows of STSL over those of PSLD with 1,000 steps whose restorations have a
  classifier's accuracy within 0.01 and a mean feature distance within 2 %; not a number where none has.
- `rows_ratio_at_p2l_style_quality`: the same against the P2L-style sampler, whose 1,000 steps have 1,000 rows here (its
  paper counts 2,000: a text is tuned besides).
- `gain_at_equal_rows`: PSNR of STSL less that of its first-order form, both with 550 rows.
- `stsl_default`: as STSL is without any setting, tuned by nobody.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.mee_gan import judge
from evaluation.benchmarks.trainings import Training, train
from evaluation.estimate import Estimate, mean_estimate
from evaluation.images.small import SmallExtractor
from evaluation.restoration import coverage, psnr, ssim
from generative.data.image_config import DigitsConfig
from generative.data.images import open_images
from generative.methods.stsl.baselines.dps import Dps
from generative.methods.stsl.baselines.p2l_style import P2LStyle
from generative.methods.stsl.baselines.psld import Psld
from generative.methods.stsl.methods import METHODS
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.operators.noise import with_noise
from generative.methods.stsl.prior import Prior, denoiser_prior
from generative.methods.stsl.problem import Cost, Problem, StreamDraws
from generative.methods.stsl.sampler import GuidedSampling, Stsl
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams

SHAPE, SIGMA = (1, 8, 8), 0.05
TASKS = {
    "superres": "superres:factor=2",
    "inpaint": "inpaint:missing=0.7",
    "blur": "gaussian_blur:size=5,std=1",
}
PRIOR = Training(
    {
        "name": "edm",
        "network": {"name": "mlp", "width": 256, "blocks": 3, "dropout": 0.0},
        "sigma_data": 0.75,
        "noise_mean": -0.4,
        "noise_std": 1.8,
        "ema": [0.999],
        "label_dropout": 0.5,
    },
    {
        "batch_size": 128,
        "optimizer": {"lr": 3.0e-3, "betas": [0.9, 0.99], "weight_decay": 0.0, "clip_norm": 1.0},
        "schedule": {"name": "cosine", "warmup_steps": 100, "min_ratio": 0.01},
    },
)

GOALS = {"psld": "<= 0.25", "p2l_style": "<= 0.125"}
"""Of the smallest rows at the quality of these."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        training: steps of the prior.
        tuning, testing: digits.
        seeds: samples of each digit.
        long: steps of PSLD, DPS and the P2L-style sampler.
        tasks: of `TASKS`.
    """

    training: int = 6000
    tuning: int = 97
    testing: int = 300
    seeds: Sequence[int] = (0, 1, 2)
    long: int = 1000
    tasks: Sequence[str] = tuple(TASKS)


QUICK = Size(20, 8, 8, (0, 1), 10, ("superres",))


@dataclass(frozen=True)
class Entry:
    """A sampler in the comparison: its settings by the weight that is tuned, and its trials."""

    method: str
    weights: Sequence[float]
    settings: Any
    ours: bool = False

    def at(self, weight: float) -> Any:
        """Settings with a weight."""
        if isinstance(self.settings, Stsl):
            return replace(self.settings, terms=replace(self.settings.terms, weight=weight))
        if isinstance(self.settings, Psld):
            return replace(self.settings, omega=weight, gamma=0.1 * weight)
        names = {Dps: "scale", P2LStyle: "rho", GuidedSampling: "weight"}
        return replace(self.settings, **{names[type(self.settings)]: weight})


def entries(size: Size) -> dict[str, Entry]:
    """All that is compared; one number, the weight of the data, is tuned in three trials for each but the default."""
    trace = Terms(data_loss="norm", eta=3.0, probe="scaled", probe_size=0.1)
    paper = Terms(data_loss="norm", eta=0.02, probe="unit")
    grid, long = (0.1, 0.3, 0.6), (0.1, 0.3, 1.0)
    return {
        "psld": Entry("psld", long, Psld(size.long)),
        "dps": Entry("dps", long, Dps(size.long)),
        "p2l_style": Entry("p2l_style", long, P2LStyle(size.long)),
        "first_order_300": Entry("first_order", grid, Stsl(replace(trace, eta=0.0), 50, 5)),
        "first_order_550": Entry("first_order", grid, Stsl(replace(trace, eta=0.0), 50, 10)),
        "stsl_unit_550": Entry("stsl", grid, Stsl(paper, 50, 5)),
        "stsl_125": Entry("stsl", grid, Stsl(trace, 25, 2), ours=True),
        "stsl_225": Entry("stsl", grid, Stsl(trace, 25, 4), ours=True),
        "stsl_550": Entry("stsl", grid, Stsl(trace, 50, 5), ours=True),
        "stsl_default": Entry("stsl", (Stsl().terms.weight,), Stsl()),
        "mmps": Entry("mmps", (0.5, 1.0, 1.5), GuidedSampling(50)),
    }


@dataclass(frozen=True)
class Judged:
    """Restorations of one task by one sampler: values by digit, over seeds; `seconds` of one, `nfe` as papers count."""

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

    @property
    def score(self) -> float:
        """What weights are tuned by: the mean feature distance, lower is better."""
        value = float(self.distance.mean())
        return value if math.isfinite(value) else math.inf


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    return figures(QUICK if quick else Size())


def figures(size: Size) -> dict[str, Figure]:
    """Of each task and sampler: psnr, ssim, accuracy, feature distance, diversity, coverage, rows and vjps."""
    prior, extractor = trained(size), judge()
    held_out = open_images(DigitsConfig()).validation
    assert held_out is not None
    found = held_out.fetch(np.arange(size.tuning + size.testing))
    told: dict[str, Figure] = {}
    for task in size.tasks:
        judged: dict[str, Judged] = {}
        for name, entry in entries(size).items():
            tune, test = slice(0, size.tuning), slice(size.tuning, size.tuning + size.testing)
            trials = [
                restored(prior, extractor, task, entry, weight, found, tune, size.seeds[:1]).score
                for weight in entry.weights
            ]
            weight = entry.weights[int(np.argmin(trials))]
            judged[name] = restored(prior, extractor, task, entry, weight, found, test, size.seeds)
            told |= _told(
                task, name, judged[name], f"weight {weight:g} of {len(trials)} trials on {size.tuning} digits"
            )
            say(f"{task} {name}: accuracy {float(judged[name].accuracy.mean()):.3f}, distance {judged[name].score:.3f}")
        for base in ("psld", "p2l_style"):
            told[f"rows_ratio_at_{base}_quality_{task}"] = _ratio(judged, entries(size), base)
        gain = judged["stsl_550"].psnr - judged["first_order_550"].psnr
        note = f"PSNR of stsl_550 less that of first_order_550, by digit, {task}"
        told[f"gain_at_equal_rows_{task}"] = figure(mean_estimate(gain.numpy(), "dB", note), ">= 0")
    return told


def trained(size: Size) -> Prior:
    """A prior of digits of any class."""
    trainer, _ = train(PRIOR, open_images(DigitsConfig()), size.training, seed=0)
    with trainer.evaluating("ema") as nets:
        net = _copy(nets["net"])

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        given: Tensor = net(x.float(), sigma.float(), None)
        return given

    return denoiser_prior(denoise, SHAPE)


def _copy(net: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(net).eval().requires_grad_(False)


def restored(
    prior: Prior,
    extractor: SmallExtractor,
    task: str,
    entry: Entry,
    weight: float,
    found: Mapping[str, Any],
    part: slice,
    seeds: Sequence[int],
) -> Judged:
    """Restore some digits and judge them."""
    truth, labels = found["sample"][part].float(), found["label"][part]
    ids = torch.arange(part.start, part.stop)
    operator = make_operator(TASKS[task], SHAPE)
    y = with_noise(operator(truth), "gaussian", SIGMA, ids, Streams(0).within("stsl_digits"))
    cost, images, residuals, begun = Cost(), [], [], time.perf_counter()
    for seed in seeds:
        draws = StreamDraws(Streams(seed).within("stsl_digits_samples"), ids)
        given = Problem(prior, operator, y, SIGMA, draws, cost)
        result = METHODS[entry.method].run(given, entry.at(weight))
        images.append(result.image)
        residuals.append(given.ratio(given.misfit(result.image)))
    seconds = (time.perf_counter() - begun) / (len(seeds) * len(truth))
    samples = torch.stack(images)
    lost = ~samples.flatten(2).isfinite().all(2)
    # a failed restoration counts as grey
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
        apart,
        covered,
        torch.stack(residuals).nanmean(0),
        cost.by_image(len(seeds) * len(truth)),
        seconds,
        METHODS[entry.method].nfe(entry.at(weight)),
    )


def _told(task: str, name: str, judged: Judged, note: str) -> dict[str, Figure]:
    rows = f"{judged.cost['rows']:g} rows, {judged.cost['vjps']:g} vjps, a paper's NFE {judged.nfe}; {note}"
    units = {"psnr": "dB", "ssim": "", "accuracy": "", "distance": "", "diversity": "", "coverage": "", "residual": ""}
    told = {
        f"{task}_{what}_{name}": figure(mean_estimate(getattr(judged, what).numpy(), unit, rows))
        for what, unit in units.items()
    }
    cost = {
        f"{task}_{what}_{name}": figure(Estimate(judged.cost[what], 0.0, 1, "", "of one restoration; exact"))
        for what in ("rows", "vjps", "decoder_vjps")
    }
    batch = f"of one restoration in a batch of {len(judged.psnr)}, this machine"
    seconds = {f"{task}_seconds_{name}": figure(Estimate(judged.seconds, None, 1, "s", batch))}
    return told | cost | seconds


def _ratio(judged: Mapping[str, Judged], known: Mapping[str, Entry], other: str) -> Figure:
    base = judged[other]
    good = [
        one.cost["rows"]
        for name, one in judged.items()
        if known[name].ours
        and float(one.accuracy.mean()) >= float(base.accuracy.mean()) - 0.01
        and one.score <= 1.02 * base.score
    ]
    value = min(good) / base.cost["rows"] if good else math.nan
    note = f"smallest rows of STSL over those of {other} at its accuracy - 0.01 and 1.02 of its feature distance"
    told = note if good else f"{note}: reached by none"
    return figure(Estimate(value, None, len(base.accuracy), "", told), GOALS[other])
