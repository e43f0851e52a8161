"""Restoring CIFAR-10 at 16 x 16 with a small diffusion prior of latents: what `stsl_digits` tells of a prior of pixels.

An autoencoder (kl_vae, 3 x 16 x 16 pixels to 4 x 8 x 8 latents) and a U-Net of its latents (edm) are trained on the
spot; both are far from good ones. Decoders make restorations dear: eight test images tune, and 30 are measured with
three seeds, so that shares of images are known to about a tenth, and the rows at PSLD's quality only inform (they are
defined for 300 images, as `stsl_digits` has them). DPS with its ancestral steps, ReSample and DAPS, whose optimisations
run through the decoder, are left out. About 40 minutes on two cores; GENERATIVE_BENCH names a folder that an
interrupted benchmark goes on from.

CIFAR-10 does not come with the distribution: the environment variable GENERATIVE_CIFAR10 names a folder in the layout
of the hub. Without it nothing is measured, and the benchmark says so.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.benchmarks.figure import Figure, say
from evaluation.benchmarks.judges import classifier
from evaluation.benchmarks.mee_gan import VARIABLE
from evaluation.benchmarks.posterior_samplers import Comparison, Ground, Size, compare
from evaluation.benchmarks.trainings import Training, train
from evaluation.images.small_network import SmallSettings
from generative.config import merged
from generative.data.image_config import HubImageConfig
from generative.data.images import ImageData, open_images
from generative.data.lock import locked
from generative.methods.edm.config import AUTOENCODER
from generative.methods.edm.method import NET, Edm
from generative.methods.stsl.prior import denoiser_prior
from generative.nets.kl_autoencoder import decoded, encoded, scaling_factor
from generative.training.checkpoint import CheckpointStore
from generative.training.trainer import Trainer

ADAM = {"name": "adamw", "lr": 2e-3, "betas": [0.9, 0.99], "weight_decay": 0.0, "clip_norm": 1.0}
TRAIN = {
    "batch_size": 64,
    "optimizer": ADAM,
    "schedule": {"name": "cosine", "warmup_steps": 100, "min_ratio": 0.01},
}
FIRST_STAGE = {"channels": [8, 16], "layers": 1, "latent": 4, "groups": 4}
DECAY = 0.998
PRIOR = {
    "name": "edm",
    "network": {"name": "song", "width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [], "dropout": 0.0},
    "sigma_data": 1.0,
    "ema": [DECAY],
    "label_dropout": 0.5,
}
MEASURED = 512
"""Training images whose latents tell the scale."""


@dataclass(frozen=True)
class LatentSize(Size):
    """How much is measured.

    Args:
        autoencoder: steps of its training.
        side: of the images.
        real: training images that the classifier is trained on.
        judge_steps: of its training.
        most: training images that are read; None: all.
    """

    training: int = 3000
    tuning: int = 8
    testing: int = 30
    autoencoder: int = 1500
    side: int = 16
    real: int = 20_000
    judge_steps: int = 1500
    most: int | None = None


QUICK = LatentSize(5, 2, 2, (0, 1), 2, ("superres",), autoencoder=5, real=200, judge_steps=10, most=500)

NAMES: Sequence[str] = (
    "psld",
    "ldps",
    "p2l_style",
    "first_order_75",
    "first_order_550",
    "stsl_unit_550",
    "stsl_125",
    "stsl_225",
    "stsl_550",
    "stsl_default",
    "mmps",
)


def run(quick: bool) -> dict[str, Figure]:
    """All figures; none without the data."""
    if not os.environ.get(VARIABLE):
        say(f"CIFAR-10 is left out: {VARIABLE} does not name its folder")
        return {}
    return compare(COMPARISON, QUICK if quick else LatentSize())


def ground(size: LatentSize, folder: Path) -> Ground:
    """A prior of latents of images of any class, and what the comparison needs besides."""
    data = opened(size)
    with locked(folder / "prior.lock"):
        trainer = trained(data, size, folder)
    with trainer.evaluating("ema") as nets:
        net, first = (copy.deepcopy(nets[name]).eval().requires_grad_(False) for name in (NET, AUTOENCODER))
    method = trainer.method
    assert isinstance(method, Edm)

    def denoise(z: Tensor, sigma: Tensor) -> Tensor:
        given: Tensor = net(z.float(), sigma.float(), None)
        return given

    prior = denoiser_prior(
        denoise,
        method.shape,
        image=(3, size.side, size.side),
        encode=lambda x: encoded(first, x, method.scale),
        decode=lambda z: decoded(first, z, method.scale),
    )
    assert data.validation is not None
    found = data.validation.fetch(np.arange(size.tuning + size.testing))
    judged_by = classifier(
        data, f"CIFAR-10 at {size.side} x {size.side}", size.real, SmallSettings(steps=size.judge_steps), folder
    )
    device = torch.device(next(net.parameters()).device)
    return Ground(prior, device, judged_by, found["sample"].float(), found["label"])


def opened(size: LatentSize) -> ImageData:
    """CIFAR-10."""
    told = {"id": os.environ[VARIABLE], "validation_split": "test", "size": size.side, "resize": True, "channels": 3}
    return open_images(HubImageConfig.model_validate({**told, "max_samples": size.most}))


def trained(data: ImageData, size: LatentSize, folder: Path) -> Trainer:
    """Autoencoder, then model of its latents; what the folder has goes on from there."""
    first = Training({"name": "kl_vae", "network": FIRST_STAGE, "kl_weight": 1e-3, "ema": [DECAY]}, TRAIN)
    place, threads = folder / "autoencoder", torch.get_num_threads()
    store = CheckpointStore(place, keep_last=1)
    trainer, _ = train(first, data, size.autoencoder, 0, threads, name="autoencoder", store=store)
    images = data.train.fetch(np.arange(min(MEASURED, len(data.train))))["sample"].float()
    with trainer.evaluating("ema") as nets:
        weight = next(nets[AUTOENCODER].parameters())
        scale = scaling_factor(nets[AUTOENCODER], [part.to(weight) for part in torch.split(images, 64)])
    latents = {"autoencoder": str(place), "weights": f"ema={DECAY}", "network": FIRST_STAGE, "scaling_factor": scale}
    second = Training(merged(PRIOR, {"latents": latents}), TRAIN)
    store = CheckpointStore(folder / "prior", keep_last=1)
    return train(second, data, size.training, 0, threads, name="prior of latents", store=store)[0]


COMPARISON = Comparison("stsl_latent", "latent_", ground, tuple(NAMES))
