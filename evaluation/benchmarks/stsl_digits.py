"""Restoring held-out digits with a diffusion prior of pixels: quality, calibration and honest costs of all samplers.

A prior is trained on the spot (edm, a fully connected network, labels left out half of the time). Of the 397 held-out
digits 97 tune one weight of each method; the other 300 are measured with three seeds: see `posterior_samplers`.
`stsl_default` is as STSL is without any setting; its defaults were chosen on these 97. About 27 minutes on two cores;
GENERATIVE_BENCH names a folder that an interrupted benchmark goes on from.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure
from evaluation.benchmarks.mee_gan import judge
from evaluation.benchmarks.posterior_samplers import Comparison, Ground, Size, compare, entries
from evaluation.benchmarks.trainings import Training, train
from generative.data.image_config import DigitsConfig
from generative.data.images import open_images
from generative.data.lock import locked
from generative.methods.stsl.prior import denoiser_prior
from generative.training.checkpoint import CheckpointStore

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

QUICK = Size(20, 8, 8, (0, 1), 10, ("superres",))


def run(quick: bool) -> dict[str, Figure]:
    """All figures."""
    return compare(COMPARISON, QUICK if quick else Size())


def ground(size: Size, folder: Path) -> Ground:
    """A prior of digits of any class, and what the comparison needs besides."""
    data = open_images(DigitsConfig())
    with locked(folder / "prior.lock"):
        store = CheckpointStore(folder / "prior", keep_last=1)
        trainer, _ = train(PRIOR, data, size.training, seed=0, name="prior of digits", store=store)
    with trainer.evaluating("ema") as nets:
        net = copy.deepcopy(nets["net"]).eval().requires_grad_(False)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        given: Tensor = net(x.float(), sigma.float(), None)
        return given

    assert data.validation is not None
    found = data.validation.fetch(np.arange(size.tuning + size.testing))
    prior = denoiser_prior(denoise, (1, 8, 8))
    device = torch.device(next(net.parameters()).device)
    return Ground(prior, device, judge(folder), found["sample"].float(), found["label"])


COMPARISON = Comparison("stsl_digits", "", ground, tuple(entries(Size())))
