"""Optimizers with parameter groups, and learning-rate schedules as plain functions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fnmatch import fnmatch

import torch
from torch import nn

from generative.errors import ConfigError
from generative.training.config import OptimizerConfig, ScheduleConfig

MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
"""Names of the state that torch keeps for each parameter."""


def learning_rate(schedule: ScheduleConfig, peak: float, update: int, updates: int) -> float:
    """Learning rate of update number `update` (0-based) out of `updates`.

    Cosine is the reference's: warm-up `peak * update / warmup`, then min + (1 + cos(pi r)) / 2 * (peak - min) with
    r = (update - warmup) / (updates - warmup), and min from there on (masked diffusion spec, section 2.4).
    """
    warmup = warmup_updates(schedule, updates)
    if update < warmup:
        return peak * update / warmup
    floor = peak * schedule.min_ratio
    span = max(updates - warmup, 1)
    progress = min((update - warmup) / span, 1.0)
    if schedule.name == "constant":
        return peak
    if schedule.name == "linear":
        return peak + (floor - peak) * progress
    if schedule.name == "wsd":
        start = 1 - schedule.decay_fraction
        return peak + (floor - peak) * max(progress - start, 0.0) / schedule.decay_fraction
    return floor + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - floor)


def warmup_updates(schedule: ScheduleConfig, updates: int) -> int:
    """Number of warm-up updates."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return max(int(schedule.warmup_fraction * updates), schedule.warmup_at_least)


def decays(name: str, parameter: nn.Parameter, no_decay: Iterable[str]) -> bool:
    """Whether weight decay applies to a parameter."""
    return not any(parameter.ndim <= 1 if rule == "1d" else fnmatch(name, rule) for rule in no_decay)


def build_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over the module's trainable parameters, in groups with and without weight decay.

    Raises:
        ConfigError: a `no_decay` pattern matches no parameter.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    for rule in config.no_decay:
        if rule != "1d" and not any(fnmatch(name, rule) for name, _ in named):
            raise ConfigError(
                f"train.optimizer.no_decay: {rule!r} matches no parameter",
                expected=f"a pattern on names such as {named[0][0]!r}, or '1d'",
                remedy="correct the pattern or remove it",
            )
    groups = [
        {"params": [p for n, p in named if decays(n, p, config.no_decay)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n, p, config.no_decay)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One fused kernel over all parameters: same formula, several times faster than one call each.
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.betas[0], fused=True)
