"""Averages of any width and length, made after training from those that were kept on the way.

A run that tracks power-function averages (`generative.method.PowerProfile`) of two widths, and keeps a checkpoint now
and then, holds enough to approximate every other such average by least squares over profiles (Karras et al. 2024,
"Analyzing and improving the training dynamics of diffusion models", section 3.2). Training is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from generative.errors import CheckpointError
from generative.training.checkpoint import Checkpoint
from generative.training.ema import power_exponent
from generative.training.networks import checkpoint_weights, weight_names

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Profile:
    """The weights of steps in an average: p(s) = (g + 1) s^g / t^(g + 1) for s <= t.

    Args:
        time: t, the step that it was kept at.
        exponent: g.
    """

    time: float
    exponent: float


def inner_products(ones: Sequence[Profile], others: Sequence[Profile]) -> Floats:
    """Integrals of the products of profiles, [len(ones), len(others)]."""
    t_a, g_a = (np.array([getattr(p, name) for p in ones])[:, None] for name in ("time", "exponent"))
    t_b, g_b = (np.array([getattr(p, name) for p in others])[None] for name in ("time", "exponent"))
    power = np.where(t_a < t_b, (t_a / t_b) ** g_b, (t_b / t_a) ** g_a)
    found: Floats = (g_a + 1) * (g_b + 1) * power / ((g_a + g_b + 1) * np.maximum(t_a, t_b))
    return found


def post_hoc_weights(kept: Sequence[Profile], wanted: Profile) -> Floats:
    """Weights of the kept averages whose sum is nearest to the wanted one, [len(kept)], scaled to add up to 1.

    As released (edm2): without that, what never changes would come out about a percent too large or too small.

    Raises:
        ValueError: nothing is kept, or the same profile twice.
    """
    if not kept or len(set(kept)) < len(kept):
        raise ValueError(f"{len(kept)} averages, {len(set(kept))} of them different")
    found: Floats = np.linalg.solve(inner_products(kept, kept), inner_products(kept, [wanted])[:, 0]).astype(np.float64)
    found /= found.sum()
    return found


def profile_error(kept: Sequence[Profile], wanted: Profile, weights: Floats) -> float:
    """Distance of the weighted sum of profiles from the wanted one, relative to its own length (in L2 over steps)."""
    whole = float(inner_products([wanted], [wanted])[0, 0])
    cross = float(inner_products([wanted], kept)[0] @ weights)
    square = whole - 2 * cross + float(weights @ inner_products(kept, kept) @ weights)
    return float(np.sqrt(max(square, 0.0) / whole))


def weighted_sum(tensors: Sequence[Tensor], weights: Floats) -> Tensor:
    """Sum of weighted tensors in float64, in the type of the first."""
    total = torch.zeros(tensors[0].shape, dtype=torch.float64)
    for tensor, weight in zip(tensors, weights.tolist(), strict=True):
        total.add_(tensor.double(), alpha=weight)
    return total.to(tensors[0].dtype)


def post_hoc_average(
    checkpoints: Sequence[Checkpoint], network: str, width: float, step: int | None = None
) -> dict[str, Tensor]:
    """State dict of a network with the average of a width at a step, from all profiles in checkpoints of one run.

    What is not averaged (buffers, fixed parameters) is as in the last checkpoint. One tensor of every checkpoint is in
    memory at a time.

    Args:
        checkpoints: of one run; the more, the nearer the result.
        network: name in the method.
        width: relative width of the average.
        step: at which it ends; None: at the last checkpoint.

    Raises:
        CheckpointError: no such network, or no profiles in the checkpoints.
        ValueError: a width outside (0, 0.28].
    """
    last = max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
    kept = [(c, name, profile) for c in checkpoints for name, profile in profiles_in(c, network).items()]
    if last is None or not kept:
        raise CheckpointError(
            f"no power-function averages of {network!r} in {len(checkpoints)} checkpoints",
            "checkpoints of a run that keeps some",
            "train with method.ema_power=[0.05, 0.1] and train.checkpoint.keep_every",
        )
    wanted = Profile(last.step if step is None else step, power_exponent(width))
    weights = post_hoc_weights([profile for _, _, profile in kept], wanted)
    found = checkpoint_weights(last, network)
    prefix = f"ema/{network}/{kept[0][1]}/"
    for name in [full.removeprefix(prefix) for full in kept[0][0].names() if full.startswith(prefix)]:
        tensors = [checkpoint.tensor(f"ema/{network}/{average}/{name}") for checkpoint, average, _ in kept]
        found[name] = weighted_sum(tensors, weights)
    return found


def profiles_in(checkpoint: Checkpoint, network: str) -> Mapping[str, Profile]:
    """Profiles of the power-function averages of a network, by their names in a checkpoint."""
    weight_names(checkpoint, network)  # there is such a network
    named = {full.split("/")[2] for full in checkpoint.names() if full.startswith(f"ema/{network}/power-")}
    return {
        name: Profile(checkpoint.step, power_exponent(float(name.removeprefix("power-")))) for name in sorted(named)
    }
