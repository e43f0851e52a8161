"""Optimizers with parameter groups, and learning-rate schedules as plain functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from generative.errors import ConfigError
from generative.training.config import OptimizerConfig, ScheduleConfig


def moment_names(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Names of what torch keeps for each parameter, of its shape."""
    return ("exp_avg", "exp_avg_sq") if isinstance(optimizer, torch.optim.AdamW) else ("momentum_buffer",)


def learning_rate(schedule: ScheduleConfig, peak: float, update: int, updates: int) -> float:
    """Learning rate of update number `update` (0-based) out of `updates` of one optimizer.

    Warm-up is peak * update / warmup, so that the first update changes nothing. After it, with min = min_ratio * peak
    and r = (update - warmup) / (updates - warmup), at most 1:

    cosine    min + (1 + cos(pi r)) / 2 * (peak - min), as the released code of arXiv 2410.18514 has it
    linear    peak + r (min - peak)
    constant  peak; there is no min
    wsd       peak, then over the last `decay_fraction` of r linearly to min
    step      peak * step_factor^floor((update - warmup) / length); there is no min
    """
    warmup = warmup_updates(schedule, updates)
    if update < warmup:
        return peak * update / warmup
    floor = peak * schedule.min_ratio
    span = max(updates - warmup, 1)
    progress = min((update - warmup) / span, 1.0)
    if schedule.name == "constant":
        return peak
    if schedule.name == "step":
        length = schedule.step_updates or max(round(schedule.step_fraction * span), 1)
        return peak * float(schedule.step_factor ** ((update - warmup) // length))
    if schedule.name == "linear":
        return peak + (floor - peak) * progress
    if schedule.name == "wsd":
        start = 1 - schedule.decay_fraction
        return peak + (floor - peak) * max(progress - start, 0.0) / schedule.decay_fraction
    return floor + 0.5 * (1 + math.cos(math.pi * progress)) * (peak - floor)


def warmup_updates(schedule: ScheduleConfig, updates: int) -> int:
    """Number of warm-up updates: `warmup_steps`, or that fraction of all (rounded down), but not below the floor."""
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    return max(int(schedule.warmup_fraction * updates), schedule.warmup_at_least)


def decays(name: str, parameter: nn.Parameter, no_decay: Iterable[str]) -> bool:
    """Whether weight decay applies to a parameter."""
    return not any(parameter.ndim <= 1 if rule == "1d" else fnmatch(name, rule) for rule in no_decay)


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def rate_of(name: str, rates: Mapping[str, float]) -> float:
    """Factor on the learning rate of a parameter: that of the first pattern that matches its name, else 1."""
    return next((factor for rule, factor in rates.items() if fnmatch(name, rule)), 1.0)


def check_patterns(config: OptimizerConfig, module: nn.Module, key: str = "train.optimizer") -> None:
    """Refuse patterns without effect; `key` is where the optimizer is configured.

    Raises:
        ConfigError: a pattern of `no_decay` or `rates` matches no parameter.
    """
    names = [name for name, _ in _trained(module)]
    for part, rules in (("no_decay", config.no_decay), ("rates", tuple(config.rates))):
        for rule in rules:
            if (part, rule) != ("no_decay", "1d") and not any(fnmatch(name, rule) for name in names):
                also = ", or '1d'" if part == "no_decay" else ""
                raise ConfigError(
                    f"{key}.{part}: {rule!r} matches no parameter",
                    expected=f"a pattern on names such as {', '.join(map(repr, names[:3]))}{also}",
                    remedy="correct the pattern or remove it",
                )


def parameter_groups(config: OptimizerConfig, module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters by weight decay and `rate`, the factor on the scheduled learning rate.

    Decoupled decay is lr x weight_decay in a step: divided by the factor, it is the same for all groups.
    """
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in _trained(module):
        key = rate_of(name, config.rates), decays(name, parameter, config.no_decay)
        found.setdefault(key, []).append(parameter)

    def decay(rate: float, decayed: bool) -> float:
        return (config.weight_decay / (rate if config.name == "adamw" else 1.0)) if decayed else 0.0

    return [
        {"params": parameters, "lr": config.lr * rate, "rate": rate, "weight_decay": decay(rate, decayed)}
        for (rate, decayed), parameters in sorted(found.items(), key=lambda entry: (-entry[0][0], not entry[0][1]))
    ]


def build_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """AdamW or SGD over the module's trainable parameters, in groups by weight decay and rate.

    Raises:
        ConfigError: a pattern of `no_decay` or `rates` matches no parameter.
    """
    check_patterns(config, module)
    groups = parameter_groups(config, module)
    # One fused kernel over all parameters: same formula, several times faster than one call each.
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    from torch.distributed.tensor import DTensor  # most of a second, which only this case needs

    # torch has no fused kernel of SGD for sharded parameters.
    sharded = any(isinstance(parameter, DTensor) for _, parameter in _trained(module))
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.betas[0], foreach=sharded, fused=not sharded)
