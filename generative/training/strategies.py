"""What a strategy cannot do, found before anything is started."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from importlib import metadata

from torch import nn

from generative.errors import ConfigError, ResourceError
from generative.method import Method
from generative.training.config import ParallelConfig, TrainConfig

DEEPSPEED = "0.19."
"""Versions of DeepSpeed whose inner doors `engines.zero` knows."""


def check_strategy(
    method: Method, config: TrainConfig, parallel: ParallelConfig, world: int, modules: Mapping[str, nn.Module]
) -> None:
    """Refuse what cannot work under a strategy.

    Args:
        world: number of workers.
        modules: the networks by name; on the meta device they cost nothing.

    Raises:
        ConfigError: an impossible combination.
        ResourceError: a package that the strategy needs is missing, or of a version that is not known.
    """
    strategy = parallel.strategy
    _check_options(config, parallel, world)
    if strategy.startswith("zero"):
        _check_deepspeed(strategy)
    for update in method.updates():
        if update.second_order and strategy in ("fsdp", "zero3"):
            raise _refused(
                strategy,
                f"update {update.name!r} of the method takes gradients of gradients",
                ("ddp", "zero1", "zero2"),
            )
    for name, spec in method.networks().items():
        clipped = spec.clip_parts and clip_norm(name, config) is not None
        if strategy.startswith("zero") and parallel.cpu_offload and clipped:
            parts = ", ".join(spec.clip_parts)
            problem = f"network {name!r} is clipped in parts ({parts}), where DeepSpeed offloads it clips the whole"
            raise _refused(strategy, problem, ("fsdp", "ddp"))
        if strategy not in ("none", "ddp") and config.precision == "bf16" and spec.trainable:
            _check_norms(name, modules[name], strategy)
        if strategy in ("fsdp", "zero3") and (spec.trainable or parallel.frozen == "sharded"):
            _check_sharding(name, modules[name], strategy)
        if strategy not in ("none", "ddp") and spec.trainable:
            _check_size(name, modules[name], world, strategy)


def clip_norm(name: str, config: TrainConfig) -> float | None:
    """At which norm the gradient of a network is clipped."""
    own = config.networks.get(name)
    return ((own.optimizer if own else None) or config.optimizer).clip_norm


def _check_options(config: TrainConfig, parallel: ParallelConfig, world: int) -> None:
    strategy = parallel.strategy
    if strategy == "none" and world > 1:
        raise _refused(
            strategy, f"{world} workers, which none does not join", ("ddp", "fsdp", "zero1", "zero2", "zero3")
        )
    if parallel.frozen == "sharded" and strategy not in ("fsdp", "zero3"):
        raise ConfigError(
            f"parallel.frozen=sharded with parallel.strategy={strategy}, which shards no weights",
            expected="parallel.frozen=plain, or strategy fsdp or zero3",
            remedy="set parallel.frozen=plain",
        )
    if parallel.cpu_offload and strategy in ("none", "ddp"):
        raise ConfigError(
            f"parallel.cpu_offload=true with parallel.strategy={strategy}, which cannot move its optimizer",
            expected="fsdp or zero1 to zero3 for offloading",
            remedy="set parallel.cpu_offload=false, or parallel.strategy=zero2",
        )
    if config.compile and strategy == "zero3":
        raise ConfigError(
            "train.compile=true with parallel.strategy=zero3, whose gathering of weights breaks compiled code",
            expected="train.compile=false, or another strategy",
            remedy="set train.compile=false, or parallel.strategy=fsdp",
        )


def _check_deepspeed(strategy: str) -> None:
    if importlib.util.find_spec("deepspeed") is None:
        raise ResourceError(
            f"parallel.strategy={strategy} needs DeepSpeed, which is not installed",
            expected="an installation with DeepSpeed, or a strategy that needs none (ddp, fsdp)",
            remedy='pip install "generative[deepspeed]", or set parallel.strategy=fsdp',
        )
    version = metadata.version("deepspeed")
    if not version.startswith(DEEPSPEED):
        raise ResourceError(
            f"parallel.strategy={strategy} with DeepSpeed {version}",
            expected=f"DeepSpeed {DEEPSPEED}x, whose inner parts this version of generative knows",
            remedy=f'pip install "deepspeed=={DEEPSPEED}*", or set parallel.strategy=fsdp',
        )


def _check_sharding(name: str, module: nn.Module, strategy: str) -> None:
    parameters = dict(module.named_parameters())
    scalars = [key for key, parameter in parameters.items() if parameter.ndim == 0]
    if strategy == "fsdp" and scalars:
        problem = f"parameter {scalars[0]} of network {name!r} is a scalar, which has no rows to share out"
        raise _refused(strategy, problem, ("ddp", "zero1", "zero2", "zero3"))
    fixed = [key for key, parameter in parameters.items() if not parameter.requires_grad]
    if strategy == "zero3" and fixed and len(fixed) < len(parameters):
        problem = f"parameter {fixed[0]} of network {name!r} is fixed while others of it are trained"
        raise _refused(strategy, problem, ("zero2", "fsdp", "ddp"))


def _check_norms(name: str, module: nn.Module, strategy: str) -> None:
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        problem = f"batch normalisation in network {name!r} cannot mix bf16 weights with fp32 statistics"
        raise _refused(f"{strategy} with train.precision=bf16", problem, ("ddp",))


def _check_size(name: str, module: nn.Module, world: int, strategy: str) -> None:
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    if count < world:
        problem = f"network {name!r} has {count} parameters to share out among {world} workers"
        raise _refused(strategy, problem, ("ddp",))


def _refused(strategy: str, problem: str, instead: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"parallel.strategy={strategy}: {problem}",
        expected=f"a strategy that can do it: {', '.join(instead)}",
        remedy=f"set parallel.strategy={instead[0]}",
    )
