"""Settings of published runs by name: of the method, and of the training around it.

Sources: Xu et al. 2025 (arXiv 2502.15681), table 5 (`paper_*`); NVlabs/FastGen at 34f30e8 (`fastgen_*`); Yin et al.
2024 (DMD2, arXiv 2405.14867) and its released code (`dmd2_*`). Where the paper's table is silent (divergence, bins),
the best reported divergence and the defaults of this method stand; it does not say whether its R1 is the approximate
one. Presets of sd15, sdxl and wan are for teachers of that kind.

The released code updates the student in every N-th iteration and the critic in the others: N - 1 updates of the critic
for one of the student. DMD2 updates the critic in every iteration: N. Averages of the released code move in every
iteration: a rate of 0.9999 there is 0.9999^N here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PresetName = Literal[
    "default",
    "paper_cifar10",
    "paper_imagenet64",
    "paper_sd15",
    "fastgen_cifar10",
    "fastgen_imagenet64",
    "fastgen_sd15",
    "fastgen_sdxl",
    "fastgen_wan",
    "dmd2_imagenet64",
    "dmd2_imagenet64_fine_tuning",
    "dmd2_sd15",
    "dmd2_sd15_fine_tuning",
    "dmd2_sdxl",
]


@dataclass(frozen=True)
class PublishedTraining:
    """How a published run was trained, always by AdamW with betas (0.9, 0.999) and weight decay 0.01.

    Args:
        lr: of student and critic, constant; None where it was not told.
        batch_size: samples of a global batch; None where it was not told.
        iterations: in the authors' count; None where it was not told.
        clip_critic: whether the critic's gradients were clipped too; the student's always were, at norm 10.
        precision: of the networks.
    """

    lr: float | None
    batch_size: int | None = None
    iterations: int | None = None
    clip_critic: bool = False
    precision: Literal["tf32", "bf16", "fp32"] = "tf32"


@dataclass(frozen=True)
class Preset:
    """A published run.

    Args:
        method: settings of `FDistillConfig`.
        training: how it was trained; None for this project's own defaults.
    """

    method: Mapping[str, Any] = field(default_factory=dict)
    training: PublishedTraining | None = None


def _fastgen(every: int, decay: float, **settings: Any) -> dict[str, Any]:
    """The released code's way to do it, with N = `every` and beta = `decay`."""
    return {
        "critic_updates": every - 1,
        "ratio": {"binning": "linear", "decay": decay, "minimum_count": 1, "minimum_ess": 0.0},
        "fake_weight": "none",
        "r1": {"form": "released"},
        "ema": [rate**every for rate in (0.9999, 0.99995, 0.9996)],
        "ema_ramp": None,
        **settings,
    }


def _dmd2(gan_weight: float, critic_updates: int = 5, **settings: Any) -> dict[str, Any]:
    """DMD2: reverse KL, [20, 980] of 1000 times, no averages, one network for fake score and discriminator."""
    time = {"first": 20, "last": 980, "critic_first": 0, "critic_last": 999}
    method = {"divergence": "rkl", "gan_weight": gan_weight, "critic_updates": critic_updates, "ema": []}
    return method | {"time": time, "backbone": "fake"} | settings


CIFAR10_LEVELS, IMAGENET64_LEVELS, SD15_LEVELS, SDXL_LEVELS = [0, 1, 2], [3], [4], [3]

_DISCRETE = {"first": 1, "last": 998}
"""floor(1000 t) for the released code's t ~ U(0.001, 0.999) of discrete schedules."""

SD15_SIGMA = 14.6146
"""Noise over signal at the last step of Stable Diffusion's schedule, sqrt(1 / alpha^2 - 1)."""

PRESETS: Mapping[str, Preset] = {
    "default": Preset(),
    "paper_cifar10": Preset(
        {"divergence": "kl", "levels": CIFAR10_LEVELS, "gan_weight": 1e-3, "r1": {"weight": 1.0}},
        PublishedTraining(1e-4, 2048, 60_000),
    ),
    "paper_imagenet64": Preset(
        {"levels": IMAGENET64_LEVELS, "gan_weight": 3e-3}, PublishedTraining(2e-6, 512, 380_000)
    ),
    "paper_sd15": Preset(
        {
            "levels": SD15_LEVELS,
            "student_sigma": SD15_SIGMA,
            "gan_weight": 1e-3,
            "critic_updates": 10,
            "guidance": 1.75,
            "r1": {"weight": 1.0},
        },
        PublishedTraining(1e-5, 1024, 60_000),
    ),
    "fastgen_cifar10": Preset(
        _fastgen(5, 0.0, divergence="kl", gan_weight=1e-3, levels=CIFAR10_LEVELS),
        PublishedTraining(1e-4, 2048, 100_000),
    ),
    "fastgen_imagenet64": Preset(
        _fastgen(5, 0.5, gan_weight=3e-3, levels=IMAGENET64_LEVELS), PublishedTraining(2e-6, 512, 600_000)
    ),
    "fastgen_sd15": Preset(
        _fastgen(10, 0.0, gan_weight=1e-3, guidance=1.75, levels=SD15_LEVELS, student_sigma=SD15_SIGMA, time=_DISCRETE),
        PublishedTraining(1e-5, 2048, 100_000, precision="bf16"),
    ),
    "fastgen_sdxl": Preset(
        _fastgen(5, 0.0, gan_weight=5e-3, guidance=8.0, levels=SDXL_LEVELS, time=_DISCRETE),
        PublishedTraining(5e-7, None, 25_000, precision="fp32"),
    ),
    "fastgen_wan": Preset(_fastgen(5, 0.0, gan_weight=1e-3, guidance=5.0), PublishedTraining(5e-5, precision="bf16")),
    "dmd2_imagenet64": Preset(
        _dmd2(3e-3, levels=IMAGENET64_LEVELS), PublishedTraining(2e-6, 280, 200_000, True, "bf16")
    ),
    "dmd2_imagenet64_fine_tuning": Preset(
        _dmd2(3e-3, levels=IMAGENET64_LEVELS, init_heads=False), PublishedTraining(5e-7, 280, 140_000, True, "bf16")
    ),
    "dmd2_sd15": Preset(
        _dmd2(0.0, 10, fake_weight="eps", guidance=1.75, levels=SD15_LEVELS, student_sigma=SD15_SIGMA),
        PublishedTraining(1e-5, 2048, 40_000, True, "bf16"),
    ),
    "dmd2_sd15_fine_tuning": Preset(
        _dmd2(
            1e-3, 10, fake_weight="eps", guidance=1.75, levels=SD15_LEVELS, student_sigma=SD15_SIGMA, init_heads=False
        ),
        PublishedTraining(5e-7, 2048, 5_000, True, "bf16"),
    ),
    "dmd2_sdxl": Preset(
        _dmd2(5e-3, fake_weight="eps", guidance=8.0, levels=SDXL_LEVELS),
        PublishedTraining(None, 128, None, True, "bf16"),
    ),
}
"""DMD2's fine-tuning continues a first stage without the adversarial loss (`init_from`)."""
