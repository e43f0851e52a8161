"""Entropy of codes against mode collapse: stacked digits, ring and grid, CIFAR-10, and what the entropy costs.

Stacked digits: 1,000 modes; 1,200 updates of the generator and 1,200 of the discriminator, each on one batch of 128,
the same small networks and learning rates for all methods but the released recipe, which has its own rates. Settings
were chosen on seeds 100 and 101; the figures are of seeds 0 to 4. Samples are drawn from averaged weights with
statistics of their own.

CIFAR-10 does not come with the distribution: the environment variable GENERATIVE_CIFAR10 names a folder in the layout
of the hub. Without it the part is left out, and the benchmark says so.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evaluation.benchmarks import mee_gan_cost
from evaluation.benchmarks.figure import Figure, figure, median_estimate, say
from evaluation.benchmarks.judges import classifier, evenly
from evaluation.benchmarks.trainings import Training, draw, train
from evaluation.estimate import Estimate
from evaluation.image import KeepSettings, compare, in_batches, score_part
from evaluation.images.small import SmallExtractor
from evaluation.modes import grid, judged_modes, mixture_modes, ring
from generative.data.image_config import DigitsConfig, HubImageConfig, PointsConfig, StackedDigitsConfig
from generative.data.images import open_images

VARIABLE = "GENERATIVE_CIFAR10"


@dataclass(frozen=True)
class Settings:
    """Size of the benchmark.

    Args:
        seeds: trainings of each method on stacked digits.
        updates: of each network there.
        samples: drawn from each there.
        point_updates: of each network on ring and grid.
        point_seeds: trainings there.
        cifar_steps: on CIFAR-10; 0 leaves it out.
        cifar_samples: drawn for each FID there.
        cost_pairs: timings of the cost.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    updates: int = 1200
    samples: int = 26_000
    point_updates: int = 3000
    point_seeds: tuple[int, ...] = (0, 1)
    cifar_steps: int = 800
    cifar_samples: int = 2000
    cost_pairs: int = 30


QUICK = Settings((0,), 30, 1000, 30, (0,), 0, 0, 3)

ADAM = {"name": "adamw", "betas": [0.5, 0.999], "weight_decay": 0.0, "clip_norm": None}
HALVED = {"name": "step", "warmup_steps": 0, "step_factor": 0.5, "step_fraction": 0.25}
CONSTANT = {"name": "constant", "warmup_steps": 0}

DIGITS = {
    "name": "mee_gan",
    "network": {"name": "mlp"},
    "latent": 32,
    "code": 16,
    "ema": [0.998],
    "discriminator_updates": 1,
}
DIGITS_TRAIN = {"batch_size": 128, "optimizer": ADAM | {"lr": 1e-3}, "schedule": HALVED}
RELEASED_TRAIN = DIGITS_TRAIN | {"optimizer": ADAM | {"lr": 2e-4, "betas": [0.0, 0.999]}}

PLAIN = {"preset": "plugin", "r1": 0.0, "entropy": {"weight": 0.0}}
STACKED = {
    "gan": Training(DIGITS | PLAIN, DIGITS_TRAIN),
    "r1": Training(DIGITS | {"preset": "plugin", "entropy": {"weight": 0.0}}, DIGITS_TRAIN),
    "released": Training(
        DIGITS | {"preset": "released", "buffer_columns": 128, "entropy": {"warmup_batches": 0}}, RELEASED_TRAIN
    ),
    "mee": Training(DIGITS | {"preset": "plugin"}, DIGITS_TRAIN),
}
NAMES = {
    "gan": "non-saturating GAN",
    "r1": "the same with R1 (gamma 1)",
    "released": "the released recipe (one discriminator update a step, no warm-up)",
    "mee": "GAN with R1 and the entropy of generated codes (mean of logs, weight 0.3)",
}
GOALS = {
    "modes_mee": ">= 950",
    "kl_mee": "<= 0.55",
    "confidence_mee": ">= 0.70",
    "modes_released": ">= 550",
}


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    settings = QUICK if quick else Settings()
    return {
        **stacked(settings),
        **points(settings),
        **cifar(settings),
        **mee_gan_cost.figures(settings.cost_pairs),
    }


# ---------------------------------------------------------------------- stacked digits


def judge(cache: Path | None = None) -> SmallExtractor:
    """A classifier of digits, trained on the training digits; kept in the folder `cache`, where there is one."""
    return classifier(open_images(DigitsConfig()), "digits of scikit-learn", cache=cache)


def stacked(settings: Settings) -> dict[str, Figure]:
    """Modes, divergence from uniform and the classifier's confidence of each method: medians over seeds."""
    data, judged_by = open_images(StackedDigitsConfig()), judge()
    found: dict[str, list[float]] = {}
    for name, gan in STACKED.items():
        for seed in settings.seeds:
            trainer, seconds = train(gan, data, settings.updates, seed, name=f"{name}, seed {seed}")
            for suffix, weights in (("", "ema"), ("_raw", "trained")):
                modes, kl, confidence = _judged(judged_by, draw(trainer, settings.samples, weights))
                for what, value in (("modes", modes), ("kl", kl), ("confidence", confidence)):
                    found.setdefault(f"{what}_{name}{suffix}", []).append(value)
            told = {what: found[f"{what}_{name}"][-1] for what in ("modes", "kl", "confidence")}
            say(f"{name}, seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in told.items()) + f" ({seconds:.0f} s)")
    real = _judged(judged_by, evenly(data, settings.samples)["sample"])
    note = f"{settings.updates:,} updates of each network, batch 128; {settings.samples:,} samples; "
    note += f"{judged_by.description}; real data: {real[0]:.0f} modes, KL {real[1]:.3f}, confidence {real[2]:.3f}"
    shown = {key: values for key, values in found.items() if not key.endswith("_raw")}
    figures = {key: _median(key, values, note, settings) for key, values in shown.items()}
    for key, values in found.items():
        if key.endswith("_raw") and key.startswith(("modes", "kl")):
            figures[key] = _median(key.removesuffix("_raw"), values, "weights as trained, not averaged", settings)
    return figures


def _judged(classifier: SmallExtractor, images: Tensor) -> tuple[float, float, float]:
    probabilities = torch.cat([classifier.class_probabilities(part) for part in torch.split(images, 1000)])
    found = judged_modes(probabilities)
    assert found.confidence is not None
    return found.modes.value, found.kl.value, found.confidence.value


def _median(key: str, values: list[float], note: str, settings: Settings) -> Figure:
    name = key.partition("_")[2]
    spread = f"median of seeds {', '.join(map(str, settings.seeds))}; from {min(values):.4g} to {max(values):.4g}"
    return figure(median_estimate(values, f"{NAMES[name]}; {note}; {spread}"), GOALS.get(key), values=values)


# ---------------------------------------------------------------------- ring and grid

POINTS = {
    "name": "mee_gan",
    "network": {
        "name": "mlp",
        "generator": [400] * 4,
        "discriminator": [200] * 3,
        "maxout": 5,
        "bounded": False,
        "init_std": 0.02,
    },
    "latent": 2,
    "code": 16,
    "ema": [0.998],
    "discriminator_updates": 1,
}
POINTS_TRAIN = {"batch_size": 100, "optimizer": ADAM | {"lr": 1e-4, "betas": [0.8, 0.999]}, "schedule": CONSTANT}
POINT_GANS: dict[str, dict[str, object]] = {"gan": PLAIN, "mee": PLAIN | {"entropy": {"weight": 0.05}}}
"""R1 is not there: a discriminator that tells points 0.01 apart needs gradients that R1 with gamma 1 forbids."""
POINT_NAMES = {"gan": NAMES["gan"], "mee": "the same with the entropy of generated codes (mean of logs, weight 0.05)"}
MIXTURES = {"ring": (ring, 0.01), "grid": (grid, 0.05)}
PUBLISHED = {"ring": "GAN 6.3 modes, PacGAN2 7.9", "grid": "GAN 17.3 modes, PacGAN2 23.8"}


def points(settings: Settings) -> dict[str, Figure]:
    """Modes and high-quality points by PacGAN's protocol, with fewer updates than its 400,000."""
    figures: dict[str, Figure] = {}
    for kind, (means, std) in MIXTURES.items():
        data = open_images(PointsConfig(kind=kind))
        for name, method in POINT_GANS.items():
            values: dict[str, list[float]] = {}
            for seed in settings.point_seeds:
                gan = Training(POINTS | method, POINTS_TRAIN)
                trainer, seconds = train(gan, data, settings.point_updates, seed)
                found = mixture_modes(draw(trainer, 2500), means(), std)
                for what in ("modes", "high_quality", "reverse_kl"):
                    values.setdefault(what, []).append(getattr(found, what).value)
                told = ", ".join(f"{what} {several[-1]:.3g}" for what, several in values.items())
                say(f"{kind} {name}, seed {seed}: {told} ({seconds:.0f} s)")
            note = f"PacGAN's networks, rates and 2,500 points, {settings.point_updates:,} updates, not 400,000 "
            note += f"(published there, of 10 runs: {PUBLISHED[kind]}); median of seeds {settings.point_seeds}"
            for what, several in values.items():
                protocol = f"{POINT_NAMES[name]}; {note}"
                figures[f"{kind}_{what}_{name}"] = figure(median_estimate(several, protocol), values=several)
    return figures


# ---------------------------------------------------------------------- CIFAR-10

CIFAR = {
    "name": "mee_gan",
    "network": {"name": "dcgan", "width": 32},
    "latent": 64,
    "code": 16,
    "ema": [0.995],
    "discriminator_updates": 1,
}
CIFAR_TRAIN = {"batch_size": 64, "optimizer": ADAM | {"lr": 2e-4}, "schedule": CONSTANT}
IMAGE_GANS: dict[str, dict[str, object]] = {
    "gan": PLAIN,
    "maf": {"preset": "default", "entropy": {"weight": 0.0}},
    "maf_mee": {"preset": "default", "entropy": {"weight": 0.05, "of": "generated"}},
}
CURVE = 4
"""Points of the curve of FID."""


def cifar(settings: Settings) -> dict[str, Figure]:
    """FID in the features of a classifier trained on CIFAR-10, along a short training of each GAN."""
    folder = os.environ.get(VARIABLE)
    if not settings.cifar_steps or not folder:
        say(f"CIFAR-10 is left out: {VARIABLE} does not name its folder" if settings.cifar_steps else "no CIFAR-10")
        return {}
    data = open_images(HubImageConfig(id=folder, validation_split="test"))
    keep, count = KeepSettings(reservoir=2000), 10_000
    extractor = classifier(data, "CIFAR-10", count)
    real = score_part(in_batches(evenly(data, count)["sample"]), extractor, keep)
    figures: dict[str, Figure] = {}
    every = max(1, settings.cifar_steps // CURVE)
    for name, method in IMAGE_GANS.items():
        curve: list[tuple[int, Estimate]] = []

        def watch(step: int, trainer: object, curve: list[tuple[int, Estimate]] = curve) -> None:
            if step % every == 0:
                drawn = draw(trainer, settings.cifar_samples)  # type: ignore[arg-type]
                curve.append((step, compare(score_part(in_batches(drawn), extractor, keep), real, ["fid"])["fid"]))

        _, seconds = train(
            Training({**CIFAR, **method}, CIFAR_TRAIN), data, settings.cifar_steps, 0, threads=2, watch=watch
        )
        told = ", ".join(f"{step}: {estimate.value:.1f}" for step, estimate in curve)
        say(f"CIFAR-10 {name}: FID by step {told} ({seconds:.0f} s)")
        note = f"DCGAN of width 32, {settings.cifar_steps} steps of 64 images, one seed; FID by step {told}"
        figures[f"cifar_fid_{name}"] = figure(curve[-1][1], None, note, [estimate.value for _, estimate in curve])
    return figures
